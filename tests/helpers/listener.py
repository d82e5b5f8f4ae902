"""A port of loopback that counts who connects to it, and answers nobody."""

from __future__ import annotations

import socket
import threading
import time


class Listener:
    """Accepts connections and closes them; `connections` says, at its end, how many there were."""

    def __init__(self) -> None:
        self.connections = 0
        self._peers: list[object] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            self._peers.append(peer)
            connection.close()

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with socket.create_connection(self._socket.getsockname()) as last:  # all others have come before
            while last.getsockname() not in self._peers:
                time.sleep(0.001)
        self.connections = len(self._peers) - 1
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

"""Asking servers: one table of retries, one client, and what an answer means."""

from tessera_cli.net.access import OPEN, Access, Ticket
from tessera_cli.net.client import Answer, Client, Part
from tessera_cli.net.tally import Tally

__all__ = ["OPEN", "Access", "Answer", "Client", "Part", "Tally", "Ticket"]

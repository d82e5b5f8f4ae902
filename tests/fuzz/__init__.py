"""Files, documents and answers of strangers, changed at random: each is used or refused in one line, soon and in peace.

`python -m tests.fuzz --seconds 1200` runs every target for its share; a short form is part of the tests.
"""

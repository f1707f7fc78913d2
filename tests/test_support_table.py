"""docs/support.md lists what the table in tests/support_table.py promises, and the tests that it names exist."""

from __future__ import annotations

import re

from support_table import HERE, PAGE, TABLE

ROWS = [row for rows in TABLE.values() for row in rows]


def test_the_named_tests_exist() -> None:
    for row in ROWS:
        assert re.search(rf"^def {row.test}\(", (HERE / row.file).read_text(), re.MULTILINE), row


def test_page_is_up_to_date() -> None:
    """Run `python tests/support_table.py` where it is not."""
    written = re.findall(r"^\| (.+?) \| (works|refused)\b.* \| `(.+?)::(.+?)` \|$", PAGE.read_text(), re.MULTILINE)
    assert written == [(row.what, "refused" if row.refused else "works", row.file, row.test) for row in ROWS]

"""The Python of every page in docs/ runs as it stands, from the top of the page to its end."""

import re
from pathlib import Path

import pytest
import torch

from convlite.lighten import canonical

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(canonical, "TRIES", (canonical.LEAST,) * 2)  # that it runs is asked, not how well
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    exec(compile("\n".join(blocks), page.name, "exec"), {})

"""Files appear whole or not at all, and asking whether one may write leaves nothing behind."""

import pytest

from convlite.errors import InputError
from convlite.files import check_writable, read_json, write_json, write_whole


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_whole(path, fail)
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_checking_leaves_no_folder_behind(tmp_path):
    check_writable(tmp_path / "b" / "c")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another"):
        check_writable(tmp_path / "file" / "d")


@pytest.mark.parametrize("text", ["", "{", "\udcff"])
def test_what_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"no valid JSON|no text in UTF-8"):
        read_json(path)

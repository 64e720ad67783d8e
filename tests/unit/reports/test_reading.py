"""Tables that reports read."""

import pytest

from slug.errors import SlugError
from slug.reports import reading


def read(path):
    return reading.csv_table(path, ("layer", "step", "forget_acc1"), "run it again")


def test_a_table_as_written_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("layer,step,forget_acc1,more\n,0,0.5,x\nlr 1,1,nan,y\n")
    assert list(read(tmp_path / "a.csv")["step"]) == [0, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing; run it again"),
        (b"", "is no whole CSV"),
        (b"layer,step,forget_acc1\n", "has no rows"),
        (b"layer,step,zzz\n,0,1\n", "has no column forget_acc1"),
        (b"layer,step,forget_acc1\na,one,0\n", "other things than numbers in its column step"),
        (b"layer,step,forget_acc1,x_trace\na,1,0,words\n", "other things than numbers in its column x_trace"),
        (b"layer,step,forget_acc1\n\xff\xfe,1,0\n", "is no whole CSV"),
        (b'layer,step,forget_acc1\n"a,1,0\n', "is no whole CSV|has no"),
        (b"layer,step\n1,2,3,4\n1,2,3,4,5,6\n", "is no whole CSV"),
    ],
)
def test_any_other_table_is_refused_in_one_line(tmp_path, content, said):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SlugError, match=said):
        read(tmp_path / "a.csv")


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(SlugError, match="is no whole CSV"):
        read(tmp_path)

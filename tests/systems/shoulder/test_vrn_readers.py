import pytest

from medray.errors import UserError
from medray.systems.shoulder.vrn_readers import compare_groups, group_scores, read_readers

ROWS = [{"case": "a", "true": "none", "repeats": "000"}, {"case": "b", "true": "medium", "repeats": "333"},
        {"case": "c", "true": "small", "repeats": "224"}]  # fmt: skip
TABLE = """reader,group,case,class
ann,specialist,a,none
ann,specialist,b,small
ann,specialist,c,small
bob,general,a,partial
bob,general,b,none
cid,general,a,normal
cid,general,b,massive
cid,general,elsewhere,small
"""


def written(tmp_path, text):
    path = tmp_path / "readers.csv"
    path.write_text(text)
    return path


def test_scores_of_readers_by_hand(tmp_path):
    groups = group_scores(ROWS, read_readers(written(tmp_path, TABLE)))
    assert groups["network"]["top1"] == pytest.approx([1, 1, 2 / 3])
    assert groups["specialist"]["top1"] == pytest.approx([2 / 3])
    assert groups["specialist"]["top1_within_1"] == [1.0]
    assert groups["general"]["top1"] == [0.0, 0.5]  # of the test cases that they read
    assert groups["general"]["sensitivity"] == [0.0, 1.0]
    assert groups["general"]["specificity"] == [0.0, 1.0]


def test_groups_are_compared_in_pairs(tmp_path):
    told = compare_groups(group_scores(ROWS, read_readers(written(tmp_path, TABLE))))
    assert told["general_median_top1"] == 0.25
    assert 0 < told["kruskal_p_top1"] < 1
    assert {name for name in told if name.startswith("bonferroni_p_top1_network")} >= {
        "bonferroni_p_top1_network_specialist",
        "bonferroni_p_top1_network_general",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("reader,case,class\nann,a,none\n", "no column 'group'"), (TABLE + "ann,general,b,small\n", "'ann' is in"),
     (TABLE + "ann,specialist,b,huge\n", "row 9: the class 'huge'"),
     (TABLE + "dan,network,b,small\n", "row 9: the group 'network' is the network's own"), ("", "no column 'reader'")],
)  # fmt: skip
def test_a_faulty_table_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_readers(written(tmp_path, text))


def test_a_reader_of_other_cases_is_told(tmp_path):
    readers = read_readers(written(tmp_path, "reader,group,case,class\nann,one,z,none\n"))
    with pytest.raises(UserError, match="'ann' has read none of the 3"):
        group_scores(ROWS, readers)

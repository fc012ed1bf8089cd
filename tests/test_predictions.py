import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UserError
from utils.scoring.metrics import accuracy_row, judge
from utils.scoring.paper import TABLE1_COLUMNS
from utils.scoring.predictions import COLUMNS, read_predictions, write_predictions

HEADER = ",".join(COLUMNS)
GOOD = "12,00000093,Audio,Counting,one,one,True"


def questions(**answers):
    """A questions table; `q12="one"` is question 12 with that answer."""
    rows = [(name[1:], "00000093", "Audio", "Counting", answer) for name, answer in answers.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS[:5]))


def test_csv_layout(tmp_path):
    table = judge(questions(q12="one", q7="more than ten"), ["one", "two"])
    write_predictions(tmp_path / "p.csv", table)
    expected = f"{HEADER}\n{GOOD}\n7,00000093,Audio,Counting,more than ten,two,False\n"
    assert (tmp_path / "p.csv").read_text() == expected
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.csv"), table)


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=12)
FILLED = WORDS.filter(str.strip)


@given(st.lists(st.tuples(FILLED, FILLED, FILLED, FILLED, WORDS), min_size=1, max_size=5))
def test_csv_returns_what_was_written(tmp_path_factory, rows):
    """Whatever AVQA's annotators typed: commas, quotes, line breaks, "NA", "null" and separators of other scripts."""
    path = tmp_path_factory.mktemp("csv") / "p.csv"
    rows = [(str(i), *row) for i, row in enumerate(rows)]
    table = pd.DataFrame([row[:5] for row in rows], columns=list(COLUMNS[:5]))
    table = judge(table, [row[5] for row in rows])
    write_predictions(path, table)
    pd.testing.assert_frame_equal(read_predictions(path), table, check_dtype=False)


def test_what_a_model_tells_of_its_answers_is_written(tmp_path):
    table = judge(questions(q12="one", q7="two"), ["one", ""])
    table = table.assign(probability=[0.8125, float("nan")], selected=["3 11 40", ""])
    write_predictions(tmp_path / "p.csv", table.assign(prompt="not written"))
    assert (tmp_path / "p.csv").read_text().splitlines()[:2] == [
        f"{HEADER},probability,selected",
        f"{GOOD},0.8125,3 11 40",
    ]
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.csv"), table[list(COLUMNS)])


def test_csv_resaved_by_a_spreadsheet(tmp_path):
    """A byte order mark, CRLF, quoted header, TRUE for True, ids as floats, columns of the user's own."""
    names = ",".join(f'"{name}"' for name in (*COLUMNS, "remark"))
    text = f"{names}\r\n12.0,v,Both,Where,Field,field,TRUE,hm\r\n13.00,v,Both,Where,NA,,FALSE,\r\n"
    (tmp_path / "p.csv").write_bytes(text.encode("utf-8-sig"))
    table = read_predictions(tmp_path / "p.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["question_id"].tolist() == ["12", "13"]
    assert table["correct"].tolist() == [True, False]
    assert table.loc[1, ["answer", "prediction"]].tolist() == ["NA", ""]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line is not the header"),
        ("question,answer\n1,yes\n", "first line is not the header"),
        (HEADER.replace(",", ";") + "\n", "first line is not the header"),
        ("question_id,prediction\n1,yes\n", "it lacks video_id, modality, type, answer, correct"),
        (f"{HEADER}\n{GOOD}\n7,v,Audio,Counting,one\n", "line 3: has not as many fields as the header, 7"),
        (f"{HEADER}\n{GOOD},more\n", "line 2: has not as many fields as the header, 7"),
        (f"{HEADER}\n{GOOD}\n12.0,v,Audio,Counting,one,one,True\n", "question 12 is answered twice"),
        (f"{HEADER}\n{GOOD}\n7,v,Audio,Counting,,one,False\n", "line 3: answer is empty"),
        (f"{HEADER}\n7,v,Audio,Counting,one,two,True\n", "line 2: correct is 'True', but .* must be False"),
        (f"{HEADER}\n7,v,Audio,Counting,one,two,no\n", "line 2: correct is 'no', but .* must be False"),
        (f'{HEADER}\n{GOOD}\n7,v,Audio,Counting,"one,two,False\n', "line 3: unexpected end of data"),
    ],
)
def test_malformed_csv(tmp_path, text, said):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=f"p.csv.*{said}"):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b"\x93NUMPY\xff"), "cannot be read"),
    ],
)
def test_unreadable(tmp_path, make, said):
    make(tmp_path / "p.csv")
    with pytest.raises(UserError, match=f"p.csv: {said}"):
        read_predictions(tmp_path / "p.csv")


def test_a_file_without_predictions_is_no_split(tmp_path):
    (tmp_path / "p.csv").write_text(HEADER + "\n")
    with pytest.raises(UserError, match="no questions to score"):
        accuracy_row(read_predictions(tmp_path / "p.csv"), TABLE1_COLUMNS)

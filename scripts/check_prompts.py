"""Print how many questions of annotation files each template of a prompt sheet serves, and which fall to `*`."""

from collections import Counter

from dataset.text_prompt import ANY, PromptTable, question_text
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import read_json


@command
def main() -> None:
    """Parse the command line, look every question up, print the counts."""
    parser = Parser(description=__doc__)
    parser.add_argument("sheet", help="sheet of the workbook: MUSIC-AVQA or AVQA")
    parser.add_argument("annotations", nargs="+", help="annotation files (JSON) of that dataset")
    parser.add_argument("--prompts", default="dataset/TextPrompt.xlsx", help="the workbook")
    parser.add_argument("--top", type=int, default=20, help="how many of the most frequent questions on `*` to list")
    args = parser.parse_args()

    table = PromptTable.read(args.prompts, args.sheet)
    served, fallen = Counter(), Counter()
    for path in args.annotations:
        for i, row in enumerate(read_json(path)):
            try:
                filled = table.fill(*question_text(row))
            except UserError as error:
                raise UserError(f"{path}, item {i}: {error}") from error
            served[filled.template] += 1
            if filled.template == ANY:
                fallen[filled.question] += 1
    for template, prompt in table.templates.items():
        print(f"{served[template]:7}  {template}  ->  {prompt}")
    print(f"{served.total()} questions; {len(served)} of {len(table.templates)} templates used")
    if ANY in table.templates:
        print(f"{fallen.total()} questions, {len(fallen)} distinct, fell to {ANY!r}; the most frequent:")
    for question, count in fallen.most_common(args.top):
        print(f"{count:7}  {question}")


if __name__ == "__main__":
    main()

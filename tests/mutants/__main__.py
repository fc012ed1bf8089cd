"""Make each mistake in a copy of the tree, and run the test that must notice it.

    python -m tests.mutants > results/mutants.md
    python -m tests.mutants "the class token"       # those with such words in their names

Prints a table; what is going on goes to stderr. Exit status: 0 where every mistake is noticed but those that are known
to be harmless.
"""

import argparse
import sys
import time

from tests.mutants import Mutant
from tests.mutants.of_asking import MUTANTS as OF_ASKING
from tests.mutants.of_data import MUTANTS as OF_DATA
from tests.mutants.of_extraction_and_scores import MUTANTS as OF_EXTRACTION_AND_SCORES
from tests.mutants.of_learned import MUTANTS as OF_LEARNED
from tests.mutants.of_nets import MUTANTS as OF_NETS
from tests.mutants.of_peers import MUTANTS as OF_PEERS
from tests.mutants.of_training import MUTANTS as OF_TRAINING
from tests.mutants.trial import copied_tree, is_noticed, passes

MUTANTS = [*OF_NETS, *OF_LEARNED, *OF_PEERS, *OF_TRAINING, *OF_DATA, *OF_ASKING, *OF_EXTRACTION_AND_SCORES]


def main() -> int:
    """Try the mutants that are named, or all, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="words of their names; all mutants by default")
    names = parser.parse_args().names
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    if not chosen:
        parser.error(f"no mutant has a name with {' or '.join(map(repr, names))}")
    noticed = {}
    with copied_tree() as tree:
        if not passes(tree, sorted({mutant.test for mutant in chosen})):
            raise SystemExit("a test fails without any mistake; mend that first")
        for mutant in chosen:
            began = time.perf_counter()
            noticed[mutant] = is_noticed(mutant, tree)
            verdict = "killed" if noticed[mutant] else "SURVIVED"
            print(f"{verdict:8}  {time.perf_counter() - began:5.1f} s  {mutant.name}", file=sys.stderr, flush=True)
    print(report(noticed))
    return int(any(not killed and not mutant.harmless for mutant, killed in noticed.items()))


def report(noticed: dict[Mutant, bool]) -> str:
    """The verdicts as Markdown."""
    lines = [
        "# Mistakes that the tests notice\n",
        "    python -m tests.mutants > results/mutants.md\n",
        "Each was made in a copy of the tree, and the test that must notice it was run.",
        f"**{sum(noticed.values())} of {len(noticed)} were noticed.**\n",
        "| mistake | file | noticed | test |",
        "|---|---|---|---|",
    ]
    for mutant, killed in noticed.items():
        verdict = "yes" if killed else f"no: {mutant.harmless or 'a test is missing'}"
        lines.append(f"| {mutant.name} | `{mutant.file}` | {verdict} | `{mutant.test}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""MUSIC-AVQA's 42 answers in free text: what a person reads in a sentence, by what the question asks for.

The rules are told in scripts/score.md; tests/data/free_text.tsv holds answers that a person mapped.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dataset.free_text import Lexicon, Words, affirmed, conclusion, find, lexicon, words

UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TEENS = words("eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen dozen hundred")
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
MANY, BOUND = "more than ten", "a bound, which is no number"
GROUPS = {
    "zero": "no,none,nothing,not any,no one,nobody",
    "one": "single,lone,solo",
    "two": "pair,couple,duo,duet",
    "three": "trio",
    "four": "quartet",
    "five": "quintet",
    "six": "sextet",
    "seven": "septet",
    "eight": "octet",
    MANY: "ten or more,ten plus",
}
MEASURES = {*words("s sec second min minute hour ms hz khz fps percent")}


def _numbers() -> dict[tuple[str, ...], str]:
    """Phrases that name a number, and those that only bound one."""
    plain = {unit: unit for unit in UNITS} | dict.fromkeys([*TEENS, *TENS], MANY)
    pairs = {f"{ten} {unit}": MANY for ten, unit in itertools.product(TENS, UNITS[1:10])}
    above = {
        f"{bound} {name}": MANY if answer == MANY or (name, bound != "at least") == ("ten", True) else BOUND
        for bound in ("more than", "over", "above", "greater than", "at least")
        for name, answer in plain.items()
    }
    below = {f"{b} {name}": BOUND for b in ("less than", "fewer than", "under", "at most", "up to") for name in plain}
    return {tuple(words(name)): answer for name, answer in (plain | pairs | above | below).items()} | lexicon(GROUPS)


NUMBERS = _numbers()
INSTRUMENTS = lexicon(
    {
        "accordion": "accordion,accordionist",
        "acoustic_guitar": "acoustic guitar,classical guitar,guitar,guitarist",
        "bagpipe": "bagpipe,bag pipe,bagpiper",
        "banjo": "banjo",
        "bassoon": "bassoon,bassoonist",
        "cello": "cello,celli,cellist,violoncello",
        "clarinet": "clarinet,bass clarinet,clarinetist,clarinettist",
        "congas": "congas,conga drum",
        "drum": "drum,bass drum,drumset,drumkit,drummer",
        "electric_bass": "electric bass,bass guitar,electric bass guitar,bass,bassist",
        "erhu": "erhu,er hu,chinese fiddle,chinese violin",
        "flute": "flute,flutist,flautist",
        "guzheng": "guzheng,gu zheng,zheng,zither,chinese zither",
        "piano": "piano,pianist",
        "pipa": "pipa,pi pa,chinese lute",
        "saxophone": "saxophone,sax,saxophonist",
        "suona": "suona,suo na",
        "trumpet": "trumpet,trumpeter",
        "tuba": "tuba",
        "ukulele": "ukulele,uke",
        "violin": "violin,violinist,fiddle",
        "xylophone": "xylophone,xylophonist",
        "": "electric guitar,double bass,upright bass,acoustic bass,contrabass,bassline",  # none of the 22
    }
)
TOGETHER = lexicon(
    {"simultaneously": "simultaneously,simultaneous,same time,same moment,together,at once,concurrently,in unison"}
)
POSITIONS = TOGETHER | lexicon(
    {"left": "left,leftmost,leftest", "right": "right,rightmost,rightest", "middle": "middle,center,centre,central"}
)
PLACES = lexicon({"indoor": "indoor,inside,interior", "outdoor": "outdoor,outside,open air,exterior"})
SIGHTS = lexicon(  # which tell the place where nothing does so outright
    {
        "indoor": "room,studio,hall,house,home,church,theater,theatre,classroom,office,auditorium,restaurant,bedroom",
        "outdoor": "street,park,garden,beach,field,forest,yard,backyard,lawn,plaza,mountain,road",
    }
)
YES = lexicon({"yes": "yes,yeah,yep,yup,true,correct,affirmative"})
SURELY = lexicon({"yes": "indeed,certainly,definitely,absolutely,of course,sure"})  # unless something is denied
NO = lexicon({"no": "no,nope,nah,false,incorrect,negative"})
OUTRIGHT = {*words("yes yeah yep yup")}
DOUBTLESS = re.compile(r"\b(?:there is )?(?:no|without(?: a)?) (?:doubt|question)\b")
NEGATIONS = {*words("not no never neither nor without none nothing nobody absent missing")}
LESS = {*words("quieter softer less shorter fewer weaker")}
EQUAL = {*words("equal equally same similar similarly")}
COMPARED = LESS | {*words("louder loud more longer rhythmic rhythmical")}
EXISTENCE = {  # words of questions that an answer need not repeat
    *words("is are there a an the and of in on this that it video entire any some musical instrument sound sounding"),
    *words("heard hear seen see visible present appear play playing come coming from does do be"),
}
ASKING = {*words("what which where how who whose")}
REFUSAL = re.compile(
    r"\b(?:(?:can not|unable to|impossible to|hard to|difficult to|not possible to)(?: \w+){0,3}? "
    r"(?:tell|determined?|say|identify|identified|know|answer)"
    r"|not (?:sure|clear|certain|enough)|do not know|unclear|uncertain|unknown)\b"
)
AFTER_ALL = re.compile(r"\b(?:but|however|probably|likely|think|guess|seem|appear|would)\b")


def music_answer(text: str, question: Mapping[str, Any]) -> str | None:
    """The one of the 42 answers that `text` gives to the question (its field `question`); None where it gives none,
    or several."""
    text = re.sub(r"(?i)voice[- ]over", "voiceover", conclusion(text))
    bare = re.sub(r"\(.*?\)", " ", text)  # "an erhu (Chinese fiddle)"
    said, asked = words(bare) or words(text), words(question["question"])
    if refusal := REFUSAL.search(" ".join(said)):
        rest = " ".join(said)[refusal.end() :]
        if not (after := AFTER_ALL.search(rest)):
            return None
        said = rest[after.end() :].split()
    return _reader(asked)(said, asked) or None


def _reader(asked: Words) -> Callable[[Words, Words], str | None]:
    """How the answer to a question is read: as a number, yes or no, a place, a position, an instrument."""
    which = asked.index("which") + 1 if "which" in asked else len(asked)
    if "how many" in " ".join(asked) or "number" in asked:
        return _number
    if {*words("is are do does did was were can has have")} & {*asked[:1]} or not ASKING & {*asked}:
        return _yes_or_no
    if {*words("performance perform performed performing")} & {*asked}:
        return lambda said, asked: _one(said, asked, PLACES, 6) or _one(said, asked, SIGHTS, 99)
    if "where" in asked or any(start == which for start, _, _ in find(asked, INSTRUMENTS)):
        return lambda said, asked: _one(said, asked, POSITIONS, 5)
    return lambda said, asked: _one(said, asked, {**INSTRUMENTS, **TOGETHER}, 6)  # "brass" is no slip of "bass"


def _one(said: Words, asked: Words, names: Lexicon, typos: int) -> str | None:
    """The one answer that is named; of several, the one that the question has not named itself."""
    named = affirmed(said, find(said, names, typos))
    if len(named) > 1:
        echoes = {answer for _, _, answer in find(asked, names)}
        named = [answer for answer in named if answer not in echoes]
    return named[0] if len(named) == 1 else None


def _number(said: Words, asked: Words) -> str | None:
    """The one number that is named; of several, the one before the noun that is counted: "3 instruments: 2 flutes"."""
    said = [word for word in map(_spelt, said) if word]
    found = find(said, NUMBERS, 3 if len(said) == 1 else 99)
    found = [each for each in found if not MEASURES & {*said[each[1] : each[1] + 1]}]
    named = {answer for _, _, answer in found}
    if len(named) > 1:
        named = {answer for place, (_, end, answer) in enumerate(found) if _counts(said, asked, found, place, end)}
    return named.pop() if len(named) == 1 and BOUND not in named else None


def _counts(said: Words, asked: Words, found: Sequence[tuple[int, int, str]], place: int, end: int) -> bool:
    """Whether a number stands before the noun that is asked for, and is no end of a range: "two or three flutes"."""
    noun = {"type", "kind", "sort"} if {"type", "kind"} & {*asked} else {*asked[2:]} - EXISTENCE | {"instrument"}
    if len(noun) > 1 and find(asked, INSTRUMENTS):
        noun -= {"instrument"}
    until = found[place + 1][0] if place + 1 < len(found) else len(said)
    before = said[found[place - 1][1] : found[place][0]] if place else ["first"]
    after = said[end:until] if place + 1 < len(found) else ["last"]
    return bool(noun & {*said[end : min(until, end + 3)]}) and [] not in (before, after) and before != ["or"]


def _spelt(word: str) -> str:
    """A numeral as a word; "" for a fraction."""
    if not word[0].isdecimal():
        return word
    number = float(word)
    return "" if number % 1 else UNITS[int(number)] if number <= 10 else "dozen"


def _yes_or_no(said: Words, asked: Words) -> str | None:
    """Yes or no: as the first word, or as what a statement says of what is asked. "No doubt" is neither."""
    rest = DOUBTLESS.sub("", " ".join(said)).split()
    if tuple(rest[:1]) in YES:
        return None if rest[1:2] in (["and"], ["or"]) and find(rest[2:3], NO) else "yes"
    if NEGATIONS & {*rest} or find(rest, NO):
        return None if OUTRIGHT & {*rest} else "no"
    if find(rest, {**YES, **SURELY}) or (said and not rest):
        return "yes"
    if "than" in asked:
        return _comparison(said, asked)
    content = {*asked} - EXISTENCE
    return "yes" if content and content <= {*rest} else None


def _comparison(said: Words, asked: Words) -> str | None:
    """Yes where a statement puts that first which the question puts first: "The cello is louder (than the piano)"."""
    if EQUAL & {*said}:
        return "no"
    than, names = asked.index("than"), {**INSTRUMENTS, **POSITIONS}
    sides = [{answer for _, _, answer in find(part, names)} for part in (asked[:than], asked[than:])]
    ahead = [[answer in side for side in sides] for _, _, answer in find(said, names)][:1]
    if (not COMPARED & {*said} and len(said) > 3) or ahead not in ([[True, False]], [[False, True]]):
        return None
    return "yes" if ahead[0][0] != bool(LESS & {*said}) else "no"

"""Mistakes in asking about a video, and in releasing a model."""

from tests.mutants import Mutant

# fmt: off
MUTANTS = [
    Mutant("asked: a word that was never met is taken", "dataset/question.py",
           "self._fitting(asked, known=True)", "self._fitting(asked, known=False)",
           "test_question.py::test_what_the_model_never_met_is_refused_with_what_is_near"),
    Mutant("asked: slots know the words of other slots", "dataset/question.py",
           "self.slots.get(name.lower(), ())", "sum(map(list, self.slots.values()), [])",
           "test_question.py::test_what_the_model_never_met_is_refused_with_what_is_near"),
    Mutant("asked: seconds are selected by the question", "scripts/answering/answerer.py",
           "prompt=rows + len(rows)", "prompt=rows",
           "test_answer.py::test_probabilities_are_those_of_test_py"),
    Mutant("asked: what was kept of another start is taken", "scripts/answering/encoders.py",
           "self.manifests, start, segments]", "self.manifests, segments]",
           "test_answer.py::test_features_are_kept_by_the_contents_of_the_file"),
    Mutant("asked: any encoder will do", "scripts/answering/encoders.py",
           "if path.exists() and sha256(path) == digest:", "if path.exists():",
           "test_answer.py::test_encoders_are_known_by_their_digests"),
    Mutant("asked: time is counted from the beginning", "feat_script/media.py",
           "/ av.time_base + start  #", "/ av.time_base  #",
           "test_media_start.py::test_reading_begins_at_the_start"),
    Mutant("asked: a silent video is read to its end", "feat_script/media.py",
           "elif not self.stream and self.end > self.enough:", "elif not self.stream and self.end > math.inf:",
           "test_media_start.py::test_of_two_hours_only_what_is_asked_about_is_read"),
    Mutant("released: a file that changed is opened", "utils/release.py",
           "if sha256(folder / name) != listed.get(name):", "if name not in listed:",
           "test_release.py::test_a_byte_that_changed_or_a_file_that_is_gone_is_named"),
]

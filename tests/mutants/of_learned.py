"""Mistakes in the stages of the learned model."""

from tests.mutants import Mutant

# fmt: off
MUTANTS = [
    Mutant("learned: other seconds of a video are told from it", "nets/tspm/learned.py",
           "scores.masked_fill(same & ~pair, -torch.inf)", "scores",
           "test_learned.py::test_pairs_are_told_from_other_videos_and_from_enough_of_them"),
    Mutant("learned: pairs are told from however few videos", "nets/tspm/learned.py",
           "videos > OTHERS + 0.5", "videos > 0",
           "test_learned.py::test_pairs_are_told_from_other_videos_and_from_enough_of_them"),
    Mutant("learned: the gate is not 1 on average", "nets/tspm/temporal.py",
           "return index.shape[1] * scores.gather(1, index)", "return scores.gather(1, index)",
           "test_selection.py::test_the_first_selection_is_clip_s_own"),
    Mutant("learned: a perturbed gate learns the wrong way", "nets/tspm/temporal.py",
           "(along * noise).mean(dim=0)", "-(along * noise).mean(dim=0)",
           "test_selection.py::test_a_perturbed_gate_learns_what_is_nearly_selected"),
    Mutant("learned: noise that selects nothing is 0 / 0", "nets/tspm/temporal.py",
           ".clamp_min(1 / _Perturbed.SAMPLES)", "",
           "test_selection.py::test_a_perturbed_gate_is_finite_where_noise_selects_none_of_the_selected"),
    Mutant("learned: what is selected is not weighted", "nets/tspm/model.py",
           "(gate * stream for stream in", "(stream for stream in",
           "test_learned.py::test_gradients_reach_every_parameter"),
    Mutant("learned: the fit ignores the gate", "nets/tspm/learned.py",
           "(gate * take(found, asked, selected))", "take(found, asked, selected)",
           "test_learned.py::test_a_fit_is_the_mean_of_cosines"),
    Mutant("learned: a sound belongs to the picture of another second", "nets/tspm/learned.py",
           "normalize(seen[:, places], dim=-1)", "normalize(seen.roll(1, dims=1)[:, places], dim=-1)",
           "test_learned.py::test_a_sound_learns_from_the_picture_of_its_own_second"),
    Mutant("learned: the sound attends to what resembles it least", "nets/tspm/learned.py",
           "(self.scale * (places @ sound", "(-self.scale * (places @ sound",
           "test_learned.py::test_the_sound_attends_to_what_resembles_it"),
    Mutant("learned: segments do not know their place", "nets/tspm/learned.py",
           "x + self.place + self", "x + self",
           "test_learned.py::test_segments_know_their_place_and_their_neighbours"),
]

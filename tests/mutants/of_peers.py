"""Mistakes in PSTP-Net and ST-AVQA."""

from tests.mutants import Mutant

PSTP, ST = "nets/pstp_net.py", "nets/st_avqa.py"
PLAIN = "test_mapped_weights_give_the_logits_and_weights_of_the_plain_network"

# fmt: off
MUTANTS = [
    Mutant("PSTP-Net's frames read audio that is not updated", PSTP,
           "        audio = self.read(audio, frame)\n        return audio, self.read(frame, audio)",
           "        return self.read(audio, frame), self.read(frame, audio)", f"test_pstp_net.py::{PLAIN}"),
    Mutant("PSTP-Net's contexts are its inputs", PSTP,
           "in self.context(audio, frame)]", "in (audio, frame)]", f"test_pstp_net.py::{PLAIN}"),
    Mutant("PSTP-Net's words are padded away", PSTP,
           "self.words(words[question].to(text.dtype))", "self.words(words[question, :4].to(text.dtype))",
           f"test_pstp_net.py::{PLAIN}"),
    Mutant("PSTP-Net selects spans out of order", PSTP,
           "topk(self.top_spans).indices.sort().values", "topk(self.top_spans).indices",
           "test_pstp_net.py::test_a_spans_weight_is_shared_by_its_seconds"),
    Mutant("PSTP-Net's spans weigh as much for each second", PSTP,
           "weights.repeat_interleave(length, dim=1) / length", "weights.repeat_interleave(length, dim=1)",
           "test_pstp_net.py::test_a_spans_weight_is_shared_by_its_seconds"),
    Mutant("PSTP-Net keeps the tokens of least weight", PSTP,
           "weights.topk(self.kept)", "(-weights).topk(self.kept)", f"test_pstp_net.py::{PLAIN}"),
    Mutant("PSTP-Net reads the first segment's tokens for all", PSTP,
           ".to(question.dtype))[of]", ".to(question.dtype))[of][:1].expand(pairs.shape[1], -1, -1)",
           f"test_pstp_net.py::{PLAIN}"),
    Mutant("ST-AVQA calls strange pictures its own", ST,
           "< len(sound)).long()", ">= len(sound)).long()",
           "test_st_avqa.py::test_the_matching_loss_is_that_of_the_plain_network"),
    Mutant("ST-AVQA hears strange pictures with its own pooled map", ST,
           "pooled.index_select(0, places)", "pooled",
           "test_st_avqa.py::test_the_matching_loss_is_that_of_the_plain_network"),
    Mutant("ST-AVQA takes a video twice in a batch for two", ST,
           "other = video[:, None] != video",
           "other = ~torch.eye(len(video), dtype=torch.bool)",
           "test_st_avqa.py::test_strange_pictures_are_of_any_second_of_any_other_video"),
    Mutant("ST-AVQA's strange pictures are of the same second", ST,
           "torch.randint(length, row.shape, device=row.device)", "torch.arange(length, device=row.device)",
           "test_st_avqa.py::test_strange_pictures_are_of_any_second_of_any_other_video"),
    Mutant("ST-AVQA matches a video alone", ST,
           "return Loss(0.5, total * counts, counts * len(pairs))", "return Loss(0.5, total, torch.tensor(len(pairs)))",
           "test_st_avqa.py::test_one_video_alone_has_nothing_to_match"),
    Mutant("ST-AVQA tells places for seconds", ST,
           "selected = self.seconds[top]", "selected = top", f"test_st_avqa.py::{PLAIN}"),
    Mutant("ST-AVQA without the means", ST,
           '"visual": v_grd + v.mean(dim=1)', '"visual": v_grd', f"test_st_avqa.py::{PLAIN}"),
    Mutant("ST-AVQA's cells keep their lengths", ST,
           "(weights / size)[:, None]", "weights[:, None]", f"test_st_avqa.py::{PLAIN}"),
]
# fmt: on

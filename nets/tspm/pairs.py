"""Stage 4 that learns where: the sound of a second attends to what it resembles in its picture.

B questions, P distinct segments of videos, K selected segments, S tokens of a frame, Dt token width, D hidden width,
E width in which sound and tokens are compared.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nets.network import Loss
from nets.tspm.joint import contrast
from nets.tspm.spatial import distinct

SECONDS = 10  # of a question at most: every second of a minute with every other's picture would be most of a step


class PairedPerception(nn.Module):
    """`w = softmax(c cos(U a, V p))` over the tokens p of a second, `v_spa = FC(sum of w p)`, in place of Eq. 4-5.

    U and V learn from pairs: a second's sound resembles the best-matching token of its own picture more than any of
    other videos' pictures, and the other way round (InfoNCE over the best match; EZ-VSL, Mo and Morgado 2022).
    """

    def __init__(self, project: nn.Linear, compare: nn.Linear, sound: nn.Linear, weight: float):
        super().__init__()
        self.token = project  # Dt -> D; it commutes with the weighted sum, so one vector a second is projected
        self.place = compare  # Dt -> E
        self.sound = sound  # D -> E
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.weight = weight

    def forward(
        self, audio: Tensor, frame: Tensor, token: Tensor, video: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Loss]]:
        """Attend from the audio to the tokens of the selected segments, as `SpatialPerception` does."""
        pairs = torch.stack([video[:, None].expand_as(index), index]).flatten(1)  # (2, B K)
        one, of = distinct(pairs, self.training)  # (P,), (B K,)
        x = token[pairs[0, one], pairs[1, one]].to(self.token.weight.dtype)  # Eq. 3, (P, S, Dt)
        sound = normalize(self.sound(audio.flatten(0, 1)[one]), dim=-1)  # (P, E)
        places = normalize(self.place(x), dim=-1)  # (P, S, E)
        weights = (self.scale * (places @ sound[..., None])[..., 0]).softmax(dim=-1)  # (P, S)
        attended = self.token((weights[:, None] @ x)[:, 0])  # (P, D)
        losses = {"where": self._match(sound, places, pairs[0, one], index)} if self.training else {}
        source = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        attended, weights, source = (part[of].unflatten(0, index.shape) for part in (attended, weights, source))
        return attended, index, weights, source, losses

    def _match(self, sound: Tensor, places: Tensor, video: Tensor, index: Tensor) -> Loss:
        every = -(-index.shape[1] // SECONDS)
        sound, places, video = (x.unflatten(0, index.shape)[:, ::every].flatten(0, 1) for x in (sound, places, video))
        best = (places.flatten(0, 1) @ sound.T).unflatten(0, places.shape[:2]).amax(dim=1)  # (P, P): picture, sound
        return contrast(self.scale * best.T, video, self.weight)

"""The command that makes a run of a public checkpoint: its argument, its options, what it leaves."""

import sys

import pytest
import torch

from scripts.convert_public import main
from tests.public_network import PublicNetwork, public_state_dict
from utils.checkpoint import load_run


def test_a_public_checkpoint_becomes_a_run_folder(tmp_path, monkeypatch, capsys):
    torch.save(public_state_dict(PublicNetwork(dim=8)), tmp_path / "public.pt")
    monkeypatch.setattr(sys, "argv", ["convert_public", f"{tmp_path}/public.pt", "--out", f"{tmp_path}/run"])
    main()
    stored = load_run(tmp_path / "run/best.pt")
    assert stored["config"]["model"]["spm_frames"] == "first_k"
    assert stored["config"]["model"]["hidden"] == 8
    assert "unused, since they never reach the output (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "said"), [(["--help"], 0, "state_dict of"), ([], 2, "required: checkpoint")]
)
def test_the_checkpoint_is_asked_for(monkeypatch, capsys, words, status, said):
    monkeypatch.setattr(sys, "argv", ["convert_public", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert said in "".join(capsys.readouterr())

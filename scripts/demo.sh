#!/usr/bin/env bash
# The main job on videos that the project renders itself: bash scripts/demo.sh
# Rerunnable: every step skips what is done and goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh requirements.txt

bandstand=data/bandstand assets=assets/bandstand

step() { printf '\n== %s\n' "$*"; }

step "1/6 render 500 videos of 20 s, with questions and the truth about when and where ($bandstand)"
python -m scripts.render_bandstand --preset demo --out $bandstand

step "2/6 extract audio, frame, token and text features with the small encoders of $assets"
python -m feat_script.extract_audio --videos $bandstand/videos --out $bandstand/features \
    --weights $assets/vggish.pth --segments 20
python -m feat_script.extract_visual --videos $bandstand/videos --out $bandstand/features \
    --clip $assets/clip.pt --tokens 14 --segments 20
python -m feat_script.extract_text --annotations $bandstand/annotations/{train,val,test}.json \
    --prompts dataset/TextPrompt.xlsx --sheet MUSIC-AVQA --clip $assets/clip.pt --out $bandstand/features

step "3/6 train TSPM (runs/bandstand)"
python train.py --config configs/bandstand.yaml --resume

step "4/6 train the question-only baseline, which sees and hears nothing (runs/bandstand_question)"
python train.py --config configs/bandstand.yaml --config configs/ablations/question_only.yaml \
    --out runs/bandstand_question --resume

step "5/6 draw what the model looked at"
python -m scripts.visualize --run runs/bandstand --videos $bandstand/videos --out runs/bandstand/figure4.png

step "6/6 test both on videos that neither has seen"
python test.py --run runs/bandstand_question
python test.py --run runs/bandstand

cat <<'TXT'

Look at runs/bandstand/figure4.png (when and where the model looked), runs/bandstand/test/accuracy.png and confusion.png.
Next, see what a module is worth:
    python train.py --config configs/bandstand.yaml --config configs/ablations/wo_spm.yaml --out runs/wo_spm
    python test.py --run runs/wo_spm
TXT

#!/usr/bin/env bash
# The main job on videos that the project renders itself: bash scripts/demo.sh
# Rerunnable: every step skips what is done and goes on where it was interrupted. Where a step has two jobs they run
# side by side, since a small model gains little from a second core of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh requirements.txt

bandstand=data/bandstand assets=assets/bandstand logs=runs/demo
mkdir -p $logs

steps=("0 make the environment (.venv)") job=
trap 'if [ "$job" ]; then kill -- -$job 2>/dev/null && wait $job; fi || true' EXIT # it saves where it is

# step TITLE: what follows belongs to it
step() {
    steps+=("$SECONDS $*")
    printf '\n== %s\n' "$*"
}

# beside JOB: runs that function in the background; what it says goes to runs/demo/JOB.log
beside() {
    log=$logs/$1.log
    set -m # a process group of its own, so that all of it can be ended
    "$1" >"$log" 2>&1 &
    set +m
    job=$!
}

# join LINES: waits for that job and shows the end of what it said; its failure is the script's
join() {
    local status=0
    wait $job || status=$?
    job=
    printf '\n-- %s\n' "$log"
    tail -n "$1" "$log"
    return $status
}

sound_and_text() {
    python -m feat_script.extract_audio --videos $bandstand/videos --out $bandstand/features \
        --weights $assets/vggish.pth --segments 20
    python -m feat_script.extract_text --annotations $bandstand/annotations/{train,val,test}.json \
        --prompts dataset/TextPrompt.xlsx --sheet MUSIC-AVQA --clip $assets/clip.pt --out $bandstand/features
}

published() {
    python train.py --config configs/bandstand.yaml --out runs/bandstand_published --resume
    python test.py --run runs/bandstand_published
}

picture() {
    python -m scripts.visualize --run runs/bandstand --run runs/bandstand_published --names learned published \
        --videos $bandstand/videos --out runs/bandstand/figure4.png
}

step "render 500 videos of 20 s, with questions and the truth about when and where ($bandstand)"
python -m scripts.render_bandstand --preset demo --out $bandstand

step "extract features: frames and tokens; beside them sound, then text; with the small encoders of $assets"
beside sound_and_text
python -m feat_script.extract_visual --videos $bandstand/videos --out $bandstand/features \
    --clip $assets/clip.pt --tokens 14 --segments 20
join 2

step "train TSPM that learns when and where (runs/bandstand); beside it the published design (runs/bandstand_published)"
beside published
python train.py --config configs/bandstand.yaml --config configs/models/tspm_learned_bandstand.yaml --resume
join 40

step "test it on videos that it has not seen; beside it draw what both looked at"
beside picture
python test.py --run runs/bandstand
join 1

printf '\n== %d seconds\n' $SECONDS
steps+=("$SECONDS")
for ((i = 0; i + 1 < ${#steps[@]}; i++)); do
    took=$((${steps[i + 1]%% *} - ${steps[i]%% *}))
    printf '%5d s %3d %%  %s\n' $took $((SECONDS ? 100 * took / SECONDS : 0)) "${steps[i]#* }"
done
cat <<'TXT'

Look at runs/bandstand/figure4.png (when and where both models looked), runs/bandstand/test/accuracy.png and confusion.png.
Next, ask a video of your own, or see what a module is worth:
    python -m scripts.answer VIDEO "Is there a violin sound?" --run runs/bandstand
    python train.py --config configs/bandstand.yaml --config configs/ablations/wo_spm.yaml --out runs/wo_spm
    python test.py --run runs/wo_spm
TXT

# Sourced by demo.sh and test.sh: makes .venv, installs the given requirements file into it once, and enters it.
# A change of the file, or of what it includes, installs again. Nothing of ours is installed: commands run from the root.
stamp=.venv/.installed-$(basename "$1")
wanted=$(cat requirements*.txt | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing $1 into .venv (a few minutes the first time)"
    [ -d .venv ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1"
    echo "$wanted" >"$stamp"
fi
. .venv/bin/activate

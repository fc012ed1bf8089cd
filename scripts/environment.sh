# Sourced by demo.sh and test.sh: makes .venv, installs the given requirements file into it once, and enters it.
# A change of the file, of what it includes, or of pyproject.toml installs again.
stamp=.venv/.installed-$(basename "$1")
wanted=$(cat requirements*.txt pyproject.toml | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing $1 into .venv (a few minutes the first time)"
    [ -d .venv ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
    echo "$wanted" >"$stamp"
fi
. .venv/bin/activate

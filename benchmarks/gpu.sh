#!/usr/bin/env bash
# What there is to know about promptfuse on a GPU, in 8 minutes or less.
#
#   benchmarks/gpu.sh [--device cuda|cpu] [--out DIR] [--tiny]
#
# Needs no network. PYTHON is an interpreter with promptfuse and its dev extra installed (else .venv/bin/python,
# else python3). Results go to DIR, else $OUT, else ./gpu-results: NAME.jsonl with a JSON object a line, NAME.log
# with whatever else was said, and summary.json. Each stage has a time limit of its own; what a stage has written
# until then is kept, and the others go on. The exit code is 1 if a stage failed or ran out of time.
#
# Without a GPU, or with --device cpu, it is a dry run with small sizes: about 2 minutes, and no figures to quote.
set -u
cd "$(dirname "$0")/.." || exit 2

device="" out="${OUT:-gpu-results}" tiny=""
while [ $# -gt 0 ]; do
    case "$1" in
        --device | --out)
            [ $# -ge 2 ] || { echo "gpu.sh: $1 needs a value; see --help" >&2; exit 2; }
            [ "$1" = --device ] && device="$2" || out="$2"
            shift 2 ;;
        --tiny) tiny=yes; shift ;;
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "gpu.sh: unknown option $1; see --help" >&2; exit 2 ;;
    esac
done
python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    [ -x .venv/bin/python ] && python=.venv/bin/python
fi
# Seconds for all stages together; and by what their limits are multiplied, on a machine that others use too.
budget="${BUDGET:-470}" patience="${PATIENCE:-1}"
mkdir -p "$out" || exit 2
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

begun=$(date +%s)
elapsed() { echo $(($(date +%s) - begun)); }
say() { printf '[%3d s] %s\n' "$(elapsed)" "$*"; }

case "$device" in
    "" | cpu | cuda) ;;
    *) echo "gpu.sh: --device $device: give cuda or cpu" >&2; exit 2 ;;
esac
if ! there=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")'); then
    echo "gpu.sh: $python cannot import torch; set PYTHON to an interpreter that has promptfuse" >&2
    exit 2
fi
device="${device:-$there}"
if [ "$device" != cpu ] && [ "$there" = cpu ]; then
    echo "gpu.sh: --device $device: $python sees no GPU; leave --device out for a dry run" >&2
    exit 2
fi

failed=0
stages=""
# stage NAME SECONDS COMMAND...: run it under its limit; standard output is its result.
stage() {
    local name="$1" limit=$(($2 * patience)) left start code word
    shift 2
    left=$((budget - $(elapsed)))
    [ "$limit" -gt "$left" ] && limit=$left
    start=$(elapsed)
    if [ "$limit" -lt 5 ]; then
        code=124 word="no time left"
    else
        say "$name: at most $limit s"
        timeout -k 5 "$limit" "$@" >"$out/$name.jsonl" 2>"$out/$name.log"
        code=$?
        case $code in
            0) word="done" ;;
            124 | 137) word="out of time, kept what it had" ;;
            *) word="failed ($code): $(tail -n 1 "$out/$name.log" "$out/$name.jsonl" 2>/dev/null | grep -v '^==>' | grep . | tail -n 1 | cut -c1-160)" ;;
        esac
    fi
    [ "$code" -eq 0 ] || failed=1
    say "$name: $word ($(($(elapsed) - start)) s)"
    stages="$stages$name $code $(($(elapsed) - start))
"
}

say "$python on $device, results in $out"
if [ "$device" = cpu ]; then
    say "a dry run: small sizes, nothing to quote"
    export PROMPTFUSE_GPU_TESTS=cpu
    check=(--steps 2 --beams 2 --candidates 8)
    step=(--steps 2 --beams 2 --candidates 32 --layers 2)
    captions=(--photos 2 --together 2 --steps 2 --beams 2 --candidates 16 --layers 2)
    host=(--narrow --photos 1 --together 1 --steps 2)
else
    check=() step=() captions=(--photos 24 --together 24) host=(--narrow --photos 2 --together 1)
fi
tests=(-m gpu tests/test_gpu.py -p no:cacheprovider)
if [ -n "$tiny" ]; then
    check=(--steps 2 --beams 2 --candidates 4 --tiny) step=(--steps 2 --beams 2 --candidates 4 --tiny)
    captions=(--photos 2 --together 2 --steps 2 --beams 2 --candidates 4 --tiny) host=()
    tests+=(-k values)
fi

stage machine 60 "$python" -c '
import json, platform, torch, transformers
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
row = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
row |= {"transformers": transformers.__version__, "processor": platform.processor() or platform.machine()}
row |= {"gpu": gpu and gpu.name, "gpu_gib": gpu and round(gpu.total_memory / 2**30, 1)}
print(json.dumps(row))'
stage check 90 "$python" -m benchmarks.gpu_check --device "$device" ${check[@]+"${check[@]}"}
stage step 70 "$python" -m benchmarks.gpu_step --device "$device" ${step[@]+"${step[@]}"}
for dtype in bf16 fp32; do
    stage "captions-$dtype" 110 "$python" -m benchmarks.gpu --device "$device" --dtypes "$dtype" --json \
        ${captions[@]+"${captions[@]}"}
done
stage tests 100 "$python" -m pytest "${tests[@]}"
mv "$out/tests.jsonl" "$out/tests.txt" 2>/dev/null
[ -n "$tiny" ] || stage host 40 "$python" -m benchmarks.gpu --device "$device" --dtypes fp32 --json "${host[@]}"

"$python" - "$out" "$device" "$(elapsed)" "$stages" <<'PY'
import json, pathlib, sys

out, device, seconds, stages = pathlib.Path(sys.argv[1]), *sys.argv[2:]
found = {}
for line in stages.splitlines():
    name, code, taken = line.split()
    rows, file = [], out / f"{name}.jsonl"
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(text))
        except ValueError:
            pass  # A line that was cut off with its stage.
    found[name] = {"exit_code": int(code), "seconds": int(taken), "rows": rows}
summary = {"device": device, "dry_run": device == "cpu", "seconds": int(seconds), "stages": found}
(out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
PY
say "all in $out/summary.json"
exit $failed

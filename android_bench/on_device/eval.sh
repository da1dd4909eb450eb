# usage: sh eval.sh CHUNKS BYTES_OUT INPUTS PACK SIZE [PACK SIZE ...] COMMAND [ARGUMENT ...]
# Runs COMMAND once a chunk on the next SIZE bytes of each PACK (in files x0, x1, ... here), and collects what it writes
# to y, BYTES_OUT each time, in the file outputs. Stops at the first chunk that fails: 90 = an output is missing or short.
chunks=$1 bytes=$2 inputs=$3
shift 3
packs=
while [ "$inputs" -gt 0 ]; do
    packs="$packs $1 $2"
    shift 2
    inputs=$((inputs - 1))
done

cut_inputs() { # CHUNK PACK SIZE ...
    chunk=$1 number=0
    shift
    while [ $# -gt 0 ]; do
        dd if="$1" bs="$2" skip="$chunk" count=1 of="x$number" 2>/dev/null || return
        number=$((number + 1))
        shift 2
    done
}

rm -f outputs outputs.part
chunk=0
while [ "$chunk" -lt "$chunks" ]; do
    rm -f y
    cut_inputs "$chunk" $packs || exit 91
    if [ "$chunk" = 0 ]; then "$@"; else "$@" >chunk.log 2>&1; fi
    code=$?
    if [ "$code" != 0 ]; then
        cat chunk.log 2>/dev/null
        exit "$code"
    fi
    size=0
    [ -f y ] && size=$(wc -c <y)
    if [ "$size" -ne "$bytes" ]; then
        echo "ERROR: chunk $chunk wrote $size of $bytes bytes"
        exit 90
    fi
    cat y >>outputs.part || exit 92
    chunk=$((chunk + 1))
done
rm -f y x? chunk.log
mv outputs.part outputs

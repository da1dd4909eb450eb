# usage: sh run.sh FOLDER PERIOD LIMIT COMMAND [ARGUMENT ...]
# Runs COMMAND with its output in FOLDER/log, samples it every PERIOD seconds, kills it and its children after LIMIT
# whole seconds (code 124), and at last writes FOLDER/rc, which says that everything else is there. CLOCKS: files of the
# clocks to sample.
folder=$1 period=$2 limit=$3
shift 3
mkdir -p "$folder" && cd "$folder" || exit 98
rm -f rc times samples log late
echo $$ >pid

mark() {
    cat /proc/uptime
    head -n 1 /proc/stat
}

sample() { # CHILD
    echo "@ $(cat /proc/uptime)"
    head -n 1 /proc/stat
    cat "/proc/$1/stat"
    grep -e VmHWM -e VmRSS -e Cpus_allowed_list "/proc/$1/status"
    line=clocks
    for file in $CLOCKS; do
        read -r clock <"$file" || clock=-
        line="$line $clock"
    done
    echo "$line"
}

watch() { # CHILD
    trap 'kill "$sleeper"; exit' TERM
    start=$(cut -d. -f1 /proc/uptime)
    while [ -e "/proc/$1/stat" ] && [ -e "/proc/$$" ]; do
        sleep "$period" &
        sleeper=$!
        wait "$sleeper"
        sample "$1" >>samples 2>/dev/null
        if [ $(($(cut -d. -f1 /proc/uptime) - start)) -gt "$limit" ]; then
            echo "$limit" >late
            kill -9 "-$1" 2>/dev/null || kill -9 "$1"
        fi
    done
}

mark >begin
(
    $(command -v setsid) "$@" >log 2>&1 </dev/null & # a group of its own
    child=$!
    echo "$child" >child
    watch "$child" &
    watcher=$!
    wait "$child"
    code=$?
    [ ! -f late ] || code=124
    times >times
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    echo "$code" >code
)
mark >end
mv code rc

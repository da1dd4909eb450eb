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

end() { # PROCESS: kills it, and those that it had started
    for status in $(
        kill -STOP "$1" # so that it starts no more
        grep -lE "^PPid:[[:space:]]+$1\$" /proc/[0-9]*/status
        kill -9 "$1"
    ); do
        status=${status#/proc/}
        end "${status%/status}"
    done
}

watch() { # CHILD
    : &
    wait $!
    trap 'kill $! 2>/dev/null; wait $!; exit' TERM # $!, not a variable: TERM may come before that is set
    start=$(cut -d. -f1 /proc/uptime)
    while [ -e "/proc/$1/stat" ] && [ -e "/proc/$$" ]; do
        sleep "$period" &
        wait $!
        sample "$1" >>samples 2>/dev/null
        if [ $(($(cut -d. -f1 /proc/uptime) - start)) -gt "$limit" ]; then
            echo "$limit" >late
            end "$1" 2>/dev/null
        fi
    done
}

mark >begin
(
    "$@" >log 2>&1 </dev/null &
    child=$!
    echo "$child" >child
    watch "$child" &
    watcher=$!
    wait "$child"
    code=$?
    times >times
    if [ -f late ]; then code=124; else kill "$watcher" 2>/dev/null; fi
    wait "$watcher" 2>/dev/null
    echo "$code" >code
)
mark >end
mv code rc

# sh energy.sh PERIOD IDLE_SECONDS OUT CMD ARGS...
# Runs CMD between two idle phases and writes what the battery says to OUT, a block every PERIOD seconds. Exits with
# CMD's code. Environment: CURRENT_FILE, a current_now file, or empty: then the health service is asked, if there is
# one; ODPM=1 reads the energy meters too, at the marks and in every 8th block. A block is `@ UPTIME IDLE` (of
# /proc/uptime), then those of `@@mark NAME`, `@@odpm`, `@@battery`, `@@current`, `@@health` that apply.
period=$1 idle=$2 out=$3
shift 3
parent=$$
sampler= command= pause=

meters() {
    [ "$ODPM" = 1 ] || return
    echo @@odpm
    rails=$(dumpsys android.hardware.power.stats.IPowerStats/default 2>&1 </dev/null)
    case $rails in
    *mWs*) ;;
    *) rails=$(lshal debug android.hardware.power.stats@1.0::IPowerStats/default 2>&1 </dev/null) ;;
    esac
    echo "$rails"
}

# Into a file of their own, so that no block of the sampler is cut in two. Without the battery: read by two at once, its
# charge could seem to rise.
mark() {
    {
        read -r uptime </proc/uptime
        echo "@ $uptime"
        echo "@@mark $1"
        meters
    } >>"$out.marks"
}

# When this script was killed, ends within a period and takes what it had started along.
sample() {
    count=0 health=
    [ -n "$CURRENT_FILE" ] || for ask in "dumpsys android.hardware.health.IHealth/default" \
        "lshal debug android.hardware.health@2.1::IHealth/default"; do # Android 13 and later; before
        case $($ask 2>&1 </dev/null) in *"current now"*) health=$ask && break ;; esac
    done
    : &
    wait $!
    trap 'kill $! 2>/dev/null; wait $!; exit 0' TERM # $!, not a variable: TERM may come before that is set
    while kill -0 "$parent" 2>/dev/null; do
        read -r uptime </proc/uptime
        echo "@ $uptime"
        count=$((count + 1))
        [ $((count % 8)) -ne 0 ] || meters
        echo @@battery
        dumpsys battery 2>&1 </dev/null
        if [ -n "$CURRENT_FILE" ]; then
            echo @@current
            cat "$CURRENT_FILE" 2>&1
        elif [ -n "$health" ]; then
            echo @@health
            $health 2>&1 </dev/null
        fi
        sleep "$period" &
        wait $!
    done
    read -r child <"$out.child" && kill -9 "$child"
    rm -f "$out.child"
}

rest() {
    sleep "$idle" &
    pause=$!
    echo "$pause" >"$out.child"
    wait "$pause"
    pause=
}

finish() {
    trap '' TERM INT HUP
    for child in $command $pause $sampler; do
        kill "$child" 2>/dev/null
    done
    wait
    {
        echo # the sampler may have been stopped in mid line
        cat "$out.marks"
    } >>"$out"
    rm -f "$out.marks" "$out.child"
    exit "$1"
}

trap 'finish 143' TERM
trap 'finish 130' INT
trap 'finish 129' HUP
echo "@@period $period" >"$out"
rm -f "$out.marks" "$out.child"
mark begin
sample >>"$out" 2>/dev/null </dev/null &
sampler=$!
rest
mark load_begin
"$@" </dev/null &
command=$!
echo "$command" >"$out.child"
wait "$command"
code=$?
command=
mark load_end
rest
mark end
finish "$code"

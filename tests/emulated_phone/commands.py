"""The phone's programs, as small sh scripts over the files that physics.py writes; 2 ms a call."""

import os
import shutil
from pathlib import Path

from emulated_phone import texts
from emulated_phone.personalities import ARM32, Personality

SETTINGS = {
    "system": {"screen_off_timeout": "60000", "screen_brightness": "102", "screen_brightness_mode": "1"},
    "global": {"stay_on_while_plugged_in": "0", "airplane_mode_on": "0", "low_power": "0"},
    "secure": {"android_id": "a1b2c3d4e5f60718"},
}

GETPROP = r"""
[ $# = 0 ] && exec cat "$S/getprop"
while IFS= read -r line; do
    case "$line" in "[$1]: "*) line=${line#*]: [}; echo "${line%]}"; exit;; esac
done < "$S/getprop"
echo "$2"
"""

DUMPSYS = r"""
service=$1
[ $# = 0 ] || shift
battery() {
    case "$1" in
        "") for fault in "$S"/faults/battery_garbage.*; do
                rm "$fault" 2>/dev/null && { cat "$S/garbage"; exit; }
            done
            [ -e "$S/stopped" ] && exec cat "$S/stopped"
            exec cat "$S/battery";;
        unplug|set) sed -e "s/ powered: true/ powered: false/" \
                -e "1a\\  (UPDATES STOPPED -- use 'reset' to restart)" "$S/battery" > "$S/stopped";;
        reset) rm -f "$S/stopped";;
        *) echo "Battery service (battery) commands:"; exit 255;;
    esac
}
fresh() {  # as of now, not of the last tick
    echo $$ 1<>"$S/poke"
    for k in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -e "$S/poked.$$" ] && { rm -f "$S/poked.$$"; return; }
        sleep 0.003
    done
}
odpm() {
    fresh
    [ "$1" = delta ] && delta=1 || delta=0
    [ -e "$S/odpm_last" ] || cp "$S/odpm" "$S/odpm_last"
    awk -v delta=$delta -f "$S/odpm.awk" "$S/odpm_last" "$S/odpm"
    [ $delta = 0 ] || cp "$S/odpm" "$S/odpm_last"
}
case "$service" in
    battery) battery "$@"; exit;;
    thermalservice) [ -e "$S/has_thermal" ] && { fresh; exec cat "$S/thermal"; };;
    android.hardware.power.stats.IPowerStats/default) [ -e "$S/odpm" ] && { odpm "$1"; exit; };;
    android.hardware.health.IHealth/default) [ -e "$S/has_health" ] && exec cat "$S/health";;
    power|display|window) exec cat "$S/screen_$(cat "$S/screen")";;
    batterystats|cpuinfo|meminfo|SurfaceFlinger) exit 0;;
esac
echo "Can't find service: $service" >&2
"""

ODPM_AWK = r"""
NR == FNR { if (FNR > 1) before[$1] = $2; else start = $1; next }
FNR == 1 {
    print "\n============= PowerStats HAL 2.0 energy consumers =============="
    print "========== End of PowerStats HAL 2.0 energy consumers ==========\n"
    print "============= PowerStats HAL 2.0 energy meter =============="
    if (delta) printf "Elapsed time: %d ms\n", $1 - start
    printf "%34s   %s%s\n", "Channel", "Cumulative Energy", delta ? " (      Delta   )" : ""
    next
}
{
    printf "%34s  %14.2f mWs", $1, $2
    if (delta) printf " (%14.2f)", $2 - before[$1]
    print ""
}
END { print "========== End of PowerStats HAL 2.0 energy meter ==========" }
"""

SETTINGS_SH = r"""
verb=$1 file=$S/settings/$2/$3
case "$verb $2/$3" in
    list*|*" system/"?*|*" global/"?*|*" secure/"?*) ;;
    *) echo "Invalid namespace '$2'"; exit 255;;
esac
case "$verb" in
    get) [ -e "$file" ] && cat "$file" || echo null;;
    put) echo "$4" > "$file";;
    delete) [ -e "$file" ] && rm "$file" && echo "Deleted 1 rows" || echo "Deleted 0 rows";;
    list) for file in "$S/settings/$2"/*; do echo "${file##*/}=$(cat "$file")"; done;;
    *) echo "Invalid command: $verb"; exit 255;;
esac
"""

CMD = r"""
case "$1 $2" in
    "power set-fixed-performance-mode-enabled")
        [ -e "$S/has_fixed_performance" ] || { echo "Failed to set FIXED_PERFORMANCE mode"; exit 255; }
        echo "$3" > "$S/fixed_performance";;
    "power set-wakelock")
        [ -e "$S/has_wakelock" ] || { echo "Unknown command: set-wakelock"; exit 255; }
        echo "$3" > "$S/wakelock";;
    "battery "*) shift; exec dumpsys battery "$@";;
    "thermalservice "*) [ -e "$S/has_thermal" ] || { echo "cmd: Can't find service: thermalservice" >&2; exit 20; };;
    *) echo "cmd: Can't find service: $1" >&2; exit 20;;
esac
"""

SVC = r"""
case "$1 $2 $3" in
    "power stayon true") exec settings put global stay_on_while_plugged_in 7;;
    "power stayon false") exec settings put global stay_on_while_plugged_in 0;;
    "power stayon "?*) exec settings put global stay_on_while_plugged_in 2;;
esac
"""

INPUT = r"""
case "$*" in
    "keyevent 224"|"keyevent KEYCODE_WAKEUP") echo on > "$S/screen";;
    "keyevent 223"|"keyevent KEYCODE_SLEEP") echo off > "$S/screen";;
    "keyevent 26"|"keyevent KEYCODE_POWER")
        [ "$(cat "$S/screen")" = on ] && new=off || new=on
        echo $new > "$S/screen";;
esac
"""

TASKSET = r"""
mask=$1
[ $# -ge 2 ] || { echo "taskset: Needs 2 arguments (see \"taskset --help\")" >&2; exit 1; }
case "$mask" in ""|*[!0-9a-fA-F]*|?????????????????*) echo "taskset: bad mask '$mask'" >&2; exit 1;; esac
mask=$((0x$mask))
if [ $((mask & CORES)) = 0 ] || [ $((mask & ~CORES)) != 0 ]; then
    echo "taskset: failed to set $$'s affinity: Invalid argument" >&2; exit 1
fi
shift
exec "$@"
"""

DF = r"""
echo "Filesystem       1K-blocks     Used Available Use% Mounted on"
for fault in "$S"/faults/storage_full.*; do
    [ -e "$fault" ] && { echo "/dev/block/dm-53 115249236 115249236         0 100% /data/user/0"; exit; }
done
echo "/dev/block/dm-53 115249236 31842592  83259572  28% /data/user/0"
"""

LSHAL = r"""
case "$1 $2" in
    "debug android.hardware.health@2"*) [ -e "$S/has_health_lshal" ] && exec cat "$S/health";;
esac
echo "Cannot find \"$2\"." >&2
exit 1
"""

SHA256SUM = r"""
case "$1" in ""|-*) exec REAL "$@";; esac
for file; do
    first= second=
    { read -r first; read -r second; } 2>/dev/null <"$file"
    case "$first $second" in "#!/bin/sh # ELF "*) echo "${second#"# ELF "}  $file";; *) REAL "$file" || code=$?;; esac
done
exit $code
"""

WM = r"""
case "$1" in size) echo "Physical size: SIZE";; density) echo "Physical density: DENSITY";; esac
"""

SCRIPTS = {
    "getprop": GETPROP, "dumpsys": DUMPSYS, "settings": SETTINGS_SH, "cmd": CMD, "svc": SVC, "input": INPUT,
    "taskset": TASKSET, "df": DF, "lshal": LSHAL, "wm": WM,
    "sha256sum": SHA256SUM,
}  # fmt: skip
GARBAGE = b"\x00\xff\xfe battery \x1b[31m level: lots\n  level: 400%\n  status: soon\n  Charge counter: NaN\n  voltage:"


def install(p: Personality, serial: str, root: Path) -> None:
    """Write the programs and the files that never change."""
    state = root / "state"
    cores = sum(1 << cpu for cluster in p.clusters for cpu in cluster.cpus)
    for name, text in SCRIPTS.items():
        text = text.replace("CORES", str(cores)).replace("SIZE", p.size).replace("DENSITY", str(p.density))
        text = text.replace("REAL", shutil.which("sha256sum") or "sha256sum")
        path = root / "bin" / name
        path.write_text(f"#!/bin/sh\nS='{state}'\n{text.lstrip()}")
        path.chmod(0o755)
    (state / "getprop").write_text(texts.getprop(p, serial))
    (state / "odpm.awk").write_text(ODPM_AWK)
    (state / "garbage").write_bytes(GARBAGE)
    (state / "screen").write_text("on\n")
    for screen in ("on", "off"):
        (state / f"screen_{screen}").write_text(texts.screen(screen))
    has = {
        "thermal": p.thermal != "absent", "health": p.health_hal, "health_lshal": p.health_lshal,
        "fixed_performance": p.fixed_performance, "wakelock": p.wakelock,
    }  # fmt: skip
    for name in filter(has.get, has):
        (state / f"has_{name}").touch()
    for space, values in SETTINGS.items():
        (state / "settings" / space).mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (state / "settings" / space / name).write_text(f"{value}\n")
    _install_cpus(p, root / "sys/devices/system/cpu")
    _install_power_supply(p, root / "sys/class/power_supply")
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/meminfo").write_text(texts.meminfo(p))
    (root / "proc/cpuinfo").write_text(texts.cpuinfo(p, arm32=p.machine == ARM32))


def _install_cpus(p: Personality, folder: Path) -> None:
    last = max(cpu for cluster in p.clusters for cpu in cluster.cpus)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (folder / name).write_text(f"0-{last}\n")
    for cluster in p.clusters:
        policy = folder / f"cpufreq/policy{cluster.cpus[0]}"
        policy.mkdir(parents=True, exist_ok=True)
        cpus = " ".join(map(str, cluster.cpus))
        files = {
            "related_cpus": cpus, "affected_cpus": cpus, "cpuinfo_min_freq": cluster.min_khz,
            "cpuinfo_max_freq": cluster.max_khz, "scaling_min_freq": cluster.min_khz, "scaling_governor": "schedutil",
        }  # fmt: skip
        for name, value in files.items():
            (policy / name).write_text(f"{value}\n")
        for cpu in cluster.cpus:
            (folder / f"cpu{cpu}").mkdir(exist_ok=True)
            link = folder / f"cpu{cpu}/cpufreq"
            if not link.is_symlink():
                link.symlink_to(f"../cpufreq/{policy.name}")


def _install_power_supply(p: Personality, folder: Path) -> None:
    if p.power_supply == "absent":
        return
    battery = folder / "battery"
    battery.mkdir(parents=True, exist_ok=True)
    (battery / "type").write_text("Battery\n")
    if p.power_supply == "denied":
        for name in ("current_now", "voltage_now", "charge_counter", "capacity", "uevent"):
            if os.geteuid() == 0 and not (battery / name).is_symlink():
                (battery / name).symlink_to("/proc/self/mem")  # root may read a file of mode 000; this nobody can
            elif os.geteuid():
                (battery / name).touch(mode=0o000)

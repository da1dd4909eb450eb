# What a phone is, in one command: sections of text for device.read_facts. Sent inline, so it has to stay short.
echo @@getprop; getprop
echo @@wm; wm size; wm density
echo @@screen; dumpsys power | grep -E 'mWakefulness=|Display Power: state='
echo @@memory; grep MemTotal /proc/meminfo
echo @@battery; dumpsys battery
echo @@thermal; dumpsys thermalservice
# Rails of the on-device power monitor (Pixel 6 and later): two of its lines are enough to know it is there.
echo @@odpm; { dumpsys android.hardware.power.stats.IPowerStats/default
  lshal debug android.hardware.power.stats@1.0::IPowerStats/default; } 2>/dev/null </dev/null | grep -m 2 ']:.* mWs'
# PATH|TYPE|VALUE of every supply whose current this shell may read; `read` is a builtin and starts no process.
echo @@supplies
for p in /sys/class/power_supply/*; do
  c= t=
  read -r c <"$p/current_now" && { read -r t <"$p/type"; echo "$p|$t|$c"; }
done 2>/dev/null

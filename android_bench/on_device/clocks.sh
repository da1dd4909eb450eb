# The end of both facts.sh and snapshot.sh.
# PATH|CPUS|LOWEST|HIGHEST|LIMIT|NOW in kHz, as cpu.parse_cpufreq reads it. An offline core has no folder.
echo @@cpufreq
for p in /sys/devices/system/cpu/cpufreq/policy* /sys/devices/system/cpu/cpu*/cpufreq; do
  [ -d "$p" ] || continue
  l=$p
  for f in related_cpus cpuinfo_min_freq cpuinfo_max_freq scaling_max_freq scaling_cur_freq; do
    v=; read -r v <"$p/$f"; l="$l|$v"
  done
  echo "$l"
done 2>/dev/null

# How warm and how fast a phone is right now, in one command: sections of text for thermal.read_snapshot.
echo @@uptime; cat /proc/uptime
echo @@thermal; dumpsys thermalservice
echo @@battery; dumpsys battery

"""What a phone's tools print, as pure functions of its state; laid out as the real outputs in tests/golden/phones."""

from emulated_phone.personalities import Personality

BATTERY_AOSP = """\
Current Battery Service state:
  AC powered: {ac}
  USB powered: {usb}
  Wireless powered: false
{dock}  Max charging current: {max_current}
  Max charging voltage: {max_voltage}
  Charge counter: {counter}
  status: {status}
  health: 2
  present: true
  level: {level}
  scale: 100
  voltage: {voltage}
  temperature: {temperature}
  technology: Li-{chemistry}
"""
BATTERY_SAMSUNG = """\
  batteryMiscEvent: 65536
  batteryCurrentEvent: 0
  mSecPlugTypeSummary: 0
  LED Charging: true
  LED Low Battery: true
  current now: {current}
  charge counter: {counter}
  Adaptive Fast Charging Settings: true
USE_FAKE_BATTERY: false
SEC_FEATURE_BATTERY_SIMULATION: false
BatteryInfoBackUp
  mSavedBatteryAsoc: [96]
  mSavedBatteryMaxTemp: 431
  mSavedBatteryMaxCurrent: 1606
  mSavedBatteryUsage: 21430
  battery FirstUseDate: [20240503]
[EventLogBuffer]
  09-02 10:11:12.345 level:73, status:3, health:2, voltage:4126, temperature:291, current now:-398
  09-02 10:14:31.101 level:72, status:3, health:2, voltage:4120, temperature:289, current now:-412
  Charge counter: 1
  status: 5
"""
BATTERY_TV = """\
Current Battery Service state:
  AC powered: true
  USB powered: false
  Wireless powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 1000
  status: 2
  health: 1
  present: false
  level: 100
  scale: 100
  voltage: 13
  temperature: 26
  technology: \n"""
HEALTH = """\
ac: {ac} usb: {usb} wireless: 0 dock: 0 current_max: 0 voltage_max: 0
status: {status} health: 2 present: 1
level: {level} voltage: {voltage} temp: {temperature}
current now: {current}
current avg: {current}
charge counter: {counter}
cycle count: 132
Full charge: {capacity}
"""
THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
Thermal Status: {status}
Cached temperatures:
{cached}HAL Ready: true
HAL connection:
	ThermalHAL {hal}  connected: yes
Current temperatures from HAL:
{current}Current cooling devices from HAL:
Temperature static thresholds from HAL:
{thresholds}"""
THRESHOLDS = """\
	TemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 40.0, 44.0, 50.0, 70.0, 80.0, 90.0], \
mColdThrottlingThresholds=[NaN, NaN, NaN, NaN, NaN, NaN, NaN]}
"""
NO_SERVICE = "Can't find service: {}\n"


def battery(p: Personality, state) -> str:
    """`dumpsys battery`."""
    if p.battery == "tv":
        return BATTERY_TV
    numbers = _numbers(p, state)
    text = BATTERY_AOSP.format(
        ac=str(state.plugged == "AC").lower(), usb=str(state.plugged == "USB").lower(),
        dock="  Dock powered: false\n" if p.sdk >= 33 else "", max_current=500000 if state.plugged else 0,
        max_voltage=5000000 if state.plugged else 0, chemistry="poly" if p.battery == "aosp" else "ion", **numbers,
    )  # fmt: skip
    if p.battery == "samsung":
        text += BATTERY_SAMSUNG.format(**numbers)
    elif p.sdk >= 34:
        text += "  Charging state: 0\n  Charging policy: 0\n"
    return text


def health(p: Personality, state) -> str:
    """`dumpsys android.hardware.health.IHealth/default`."""
    return HEALTH.format(ac=int(state.plugged == "AC"), usb=int(state.plugged == "USB"), capacity=p.capacity_uah,
                         **_numbers(p, state))  # fmt: skip


def power_supply(p: Personality, state) -> dict[str, str]:
    """File name -> text, of /sys/class/power_supply/battery."""
    n = _numbers(p, state)
    files = {
        "status": "Charging" if state.plugged else "Discharging", "present": 1, "capacity": n["level"],
        "voltage_now": n["voltage"] * 1000, "current_now": n["current"], "charge_counter": n["counter"],
        "temp": n["temperature"], "charge_full": p.capacity_uah,
    }  # fmt: skip
    uevent = {"NAME": "battery"} | {name.upper(): value for name, value in files.items()}
    files["uevent"] = "\n".join(f"POWER_SUPPLY_{name}={value}" for name, value in uevent.items())
    return {name: f"{value}\n" for name, value in files.items()}


def _numbers(p: Personality, state) -> dict[str, int]:
    """The battery as this phone shows it: its steps, unit and sign."""
    return {
        "counter": int(state.charge_uah // p.counter_step_uah * p.counter_step_uah),
        "status": 3 if not state.plugged else 5 if state.charge_uah >= p.capacity_uah else 2,
        "level": state.level(p.capacity_uah), "voltage": round(state.voltage_mv),
        "temperature": round(state.battery * 10),
        "current": round(p.current_sign * state.discharge_ua / p.current_unit),
    }  # fmt: skip


def thermal(p: Personality, state) -> str:
    """`dumpsys thermalservice`."""
    status = 0 if p.thermal == "always_0" else state.status
    names = {"cpu": (0, "AP"), "skin": (3, "SKIN"), "battery": (2, "BAT")} if p.thermal == "always_0" else \
        {"cpu": (0, "CPU"), "skin": (3, "SKIN"), "battery": (2, "BATTERY")}  # fmt: skip

    def row(kind: int, name: str, celsius: float, level: int) -> str:
        return f"\tTemperature{{mValue={celsius:.1f}, mType={kind}, mName={name}, mStatus={level}}}\n"

    current = "".join(row(*names[key], getattr(state, key), status if key == "skin" else 0) for key in names)
    if p.thermal == "always_0":
        current += row(2, "SUBBAT", 0.0, 0) + row(4, "USB", state.skin + 1, 0)
    cached = row(0, "CPU", 84.2, 0) + row(3, "SKIN", 48.5, 0) if p.thermal == "stale" else current
    return THERMAL.format(status=status, cached=cached, current=current, hal="AIDL 1" if p.sdk >= 33 else "2.0",
                          thresholds="" if p.thermal == "always_0" else THRESHOLDS)  # fmt: skip


def odpm_rails(state, big_share: float) -> str:
    """A line a rail, "NAME:SUBSYSTEM MILLIWATTSECONDS", after the line of the elapsed milliseconds."""
    rails = {
        "[S7M_VDD_TPU]:TPU": 12345.67,
        "[S2M_VDD_CPU2]:CPU(BIG)": state.load_mws * big_share,
        "[S4M_VDD_CPU]:CPU(LITTLE)": state.load_mws * (1 - big_share),
        "[S2S_VDD_GPU]:GPU": 33221.11,
        "[VSYS_PWR_DISP_G1]:Display": 778899.0 + 0.2 * (state.energy_mws - state.load_mws),
        "[VSYS_PWR_VBATT]:Battery": state.energy_mws,
        "[VSYS_PWR_MODEM]:Modem": 223344.0,
    }
    return f"{state.elapsed_ms}\n" + "".join(f"{name} {value:.2f}\n" for name, value in rails.items())


def getprop(p: Personality, serial: str) -> str:
    """`getprop` without a name."""
    values = {
        "ro.board.platform": p.platform, "ro.build.characteristics": p.characteristics,
        "ro.build.fingerprint": p.fingerprint, "ro.build.type": "user", "ro.build.version.release": p.android,
        "ro.build.version.sdk": p.sdk, "ro.config.marketing_name": p.marketing_name, "ro.hardware": p.device,
        "ro.product.brand": p.brand, "ro.product.cpu.abi": p.abis.split(",")[0], "ro.product.cpu.abilist": p.abis,
        "ro.product.device": p.device, "ro.product.manufacturer": p.maker, "ro.product.model": p.model,
        "ro.product.name": p.product, "ro.serialno": serial, "ro.soc.manufacturer": p.soc_maker, "ro.soc.model": p.soc,
        "ro.tfcompress.emulated": 1,
    }  # fmt: skip
    return "".join(f"[{key}]: [{value}]\n" for key, value in values.items() if value not in (None, ""))


def screen(state: str) -> str:
    """`dumpsys power`, `display` and `window`: the lines that tell whether the screen is on."""
    awake = state == "on"
    return (f"POWER MANAGER (dumpsys power)\n\n  mWakefulness={'Awake' if awake else 'Asleep'}\n"
            f"  mWakefulnessChanging=false\nDisplay Power: state={state.upper()}\n  mScreenState={state.upper()}\n"
            f"    mAwake={str(awake).lower()}\n    screenState=SCREEN_STATE_{state.upper()}\n")  # fmt: skip


def meminfo(p: Personality) -> str:
    """/proc/meminfo."""
    rows = {"MemTotal": p.ram_kb, "MemFree": p.ram_kb // 20, "MemAvailable": p.ram_kb // 2, "Buffers": 5120,
            "Cached": p.ram_kb // 3, "SwapCached": 12000, "SwapTotal": 4_194_300, "SwapFree": 2_990_844}  # fmt: skip
    return "".join(f"{name + ':':16}{value:8} kB\n" for name, value in rows.items())


def cpuinfo(p: Personality, arm32: bool) -> str:
    """/proc/cpuinfo."""
    features = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4" if arm32 else \
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp"  # fmt: skip
    block = (f"BogoMIPS\t: 49.15\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
             "CPU variant\t: 0x1\nCPU part\t: 0xd05\nCPU revision\t: 0\n\n")  # fmt: skip
    cores = [cpu for cluster in p.clusters for cpu in cluster.cpus]
    return "".join(f"processor\t: {cpu}\n{block}" for cpu in cores) + f"Hardware\t: {p.platform}\n"

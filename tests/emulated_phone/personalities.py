"""The phones: what each says of itself, how its sensors lie, what it burns. Texts are in texts.py."""

import dataclasses

ARM64, ARM32, X86_64 = 183, 40, 62  # e_machine of ELF


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Cores that share a clock."""

    cpus: tuple[int, ...]
    min_khz: int
    max_khz: int


@dataclasses.dataclass(frozen=True)
class Personality:
    """One kind of phone.

    Attributes:
        battery: the layout of `dumpsys battery`: "aosp", "samsung", "tv".
        counter_step_uah: the charge counter shows multiples of this.
        current_unit: of current_now and the like: 1 = uA, 1000 = mA.
        current_sign: of a discharge current: -1 as Android has it, 1 inverted.
        power_supply: "readable", "denied" or "absent": /sys/class/power_supply/battery.
        thermal: "hal" (honest), "stale" (an old cached block), "always_0" (status never moves), "absent".
        gpu: "full", "partial", "not_supported" or "fails".
        idle_watts, load_watts: what the whole phone burns, the load's on top of the idle one.
    """

    name: str
    serial: str
    maker: str
    brand: str
    model: str
    device: str
    product: str
    soc_maker: str
    soc: str
    platform: str
    android: str
    sdk: int
    fingerprint: str
    clusters: tuple[Cluster, ...]
    machine: int = ARM64
    abis: str = "arm64-v8a,armeabi-v7a,armeabi"
    form: str = "phone"
    characteristics: str = "nosdcard"
    marketing_name: str | None = None
    shell_v2: bool = True
    ram_kb: int = 7_812_345
    size: str = "1080x2400"
    density: int = 420
    battery: str = "aosp"
    capacity_uah: int = 4_355_000
    counter_step_uah: int = 1000
    current_unit: int = 1
    current_sign: int = -1
    power_supply: str = "denied"
    odpm: bool = False
    health_hal: bool = True
    health_lshal: bool = False
    thermal: str = "hal"
    gpu: str = "full"
    nnapi: bool = True
    fixed_performance: bool = True
    wakelock: bool = False
    idle_watts: float = 0.8
    load_watts: float = 3.0

    @property
    def machines(self) -> str:
        """e_machine of the programs that it runs, as "183,40"."""
        kinds = {"arm64-v8a": ARM64, "armeabi-v7a": ARM32, "x86_64": X86_64}
        return ",".join(str(kinds[abi]) for abi in self.abis.split(",") if abi in kinds)


PIXEL = Personality(
    name="pixel", serial="2A111FDH200ABC", maker="Google", brand="google", model="Pixel 7", device="panther",
    product="panther", soc_maker="Google", soc="Tensor G2", platform="gs201", android="14", sdk=34,
    fingerprint="google/panther/panther:14/UQ1A.240105.004/11206848:user/release-keys",
    clusters=(Cluster((0, 1, 2, 3), 300_000, 1_803_000), Cluster((4, 5), 400_000, 2_348_000),
              Cluster((6, 7), 500_000, 2_850_000)),
    odpm=True, wakelock=True,
)  # fmt: skip

SAMSUNG = Personality(
    name="samsung", serial="R3CT60ABCDE", maker="samsung", brand="samsung", model="SM-S901B", device="r0s",
    product="r0sxxx", soc_maker="Samsung", soc="s5e9925", platform="universal9925", android="13", sdk=33,
    fingerprint="samsung/r0sxxx/r0s:13/TP1A.220624.014/S901BXXU4CWCG:user/release-keys",
    clusters=(Cluster((0, 1, 2, 3), 614_400, 1_363_200), Cluster((4, 5, 6), 633_600, 1_996_800),
              Cluster((7,), 806_400, 2_592_000)),
    battery="samsung", capacity_uah=3_700_000, current_unit=1000, thermal="always_0", gpu="partial", ram_kb=7_417_212,
    size="1080x2340", density=480, idle_watts=0.7, load_watts=3.6,
)  # fmt: skip

XIAOMI = Personality(
    name="xiaomi", serial="8f2c91d7", maker="Xiaomi", brand="POCO", model="23049PCD8G", device="marble",
    product="marble_global", soc_maker="QTI", soc="SM7475", platform="taro", android="13", sdk=33,
    fingerprint="POCO/marble_global/marble:13/TKQ1.221114.001/V14.0.9.0.TMRMIXM:user/release-keys",
    marketing_name="POCO F5",
    clusters=(Cluster((0, 1, 2, 3), 300_000, 1_804_800), Cluster((4, 5, 6), 633_600, 2_496_000),
              Cluster((7,), 787_200, 2_918_400)),
    capacity_uah=4_900_000, current_sign=1, power_supply="readable", thermal="stale", gpu="full", ram_kb=11_520_880,
    characteristics="default", density=440, idle_watts=0.9, load_watts=4.2,
)  # fmt: skip

TABLET = Personality(
    name="tablet", serial="W09ABC0123456789", maker="HUAWEI", brand="HUAWEI", model="AGS2-W09", device="HWAGS2",
    product="AGS2-W09", soc_maker="", soc="", platform="hi6250", android="8.0.0", sdk=26,
    fingerprint="HUAWEI/AGS2-W09/HWAGS2:8.0.0/HUAWEIAGS2-W09/338:user/release-keys",
    marketing_name="MediaPad T5", machine=ARM32, abis="armeabi-v7a,armeabi", form="tablet", characteristics="tablet",
    clusters=(Cluster((0, 1, 2, 3), 480_000, 1_709_000), Cluster((4, 5, 6, 7), 1_402_000, 2_362_000)),
    shell_v2=False, ram_kb=2_837_520, size="1200x1920", density=240, capacity_uah=5_100_000, counter_step_uah=51_000,
    current_unit=1000, power_supply="absent", health_hal=False, health_lshal=True, thermal="absent",
    gpu="not_supported", nnapi=False, fixed_performance=False, idle_watts=1.1, load_watts=2.4,
)  # fmt: skip

TV_BOX = Personality(
    name="tv_box", serial="c0ffee00112233", maker="Amlogic", brand="Droidlogic", model="X96Max_Plus2",
    device="franklin", product="franklin", soc_maker="Amlogic", soc="S905X3", platform="franklin", android="11", sdk=30,
    fingerprint="Droidlogic/franklin/franklin:11/RP1A.200622.001/20210413:userdebug/test-keys",
    form="tv", characteristics="tv,nosdcard", clusters=(Cluster((0, 1, 2, 3), 100_000, 1_908_000),),
    ram_kb=3_876_112, size="1920x1080", density=320, battery="tv", power_supply="absent", health_hal=False,
    thermal="hal", gpu="fails", nnapi=False, fixed_performance=False, idle_watts=2.5, load_watts=2.0,
)  # fmt: skip

ALL = (PIXEL, SAMSUNG, XIAOMI, TABLET, TV_BOX)

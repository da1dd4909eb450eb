"""``study``, ``report``, ``data``: many models made, measured and reported."""

from absl import flags

from tfcompress.commands.flags import flag_values, parse, quiet, required


def study_command(argv):
    values = flag_values()
    flags.DEFINE_string("output", None, "its folder (default: runs/PRESET)", short_name="o", flag_values=values)
    flags.DEFINE_integer("workers", 1, "processes on this machine", lower_bound=1, flag_values=values)
    flags.DEFINE_string("ray", None, "address of a Ray cluster, or 'local'", flag_values=values)
    flags.DEFINE_list("devices", ["host-1thread"], "host-1thread, host-allthreads", flag_values=values)
    flags.DEFINE_string("data", None, "your data, .npz: x_train, y_train, x_val, y_val, x_test, y_test (class numbers)",
                        flag_values=values)
    flags.DEFINE_integer("epochs", 3, "of fine-tuning, for your own model", lower_bound=1, flag_values=values)
    (study,) = parse(values, argv, "study PRESET | study MODEL.keras --data x.npz", 1,
                      "PRESET: digits, ecg, ecg_full, ecg_resnet, tiny. MODEL.keras: your own trained classifier.")
    with quiet():
        from tfcompress.study.presets import own
        from tfcompress.study.run import run_study
    given = [name for name in ("data", "epochs") if values[name].present]
    if given and not study.endswith(".keras"):
        raise ValueError(f"--{given[0]} goes with a MODEL.keras of your own. Received: {study!r}, a preset.")
    if study.endswith(".keras"):
        study = own(study, required(values, "data"), values.epochs)
    page = run_study(study, values.output, workers=values.workers, ray=values.ray, devices=tuple(values.devices))
    print(f"Report: {page.resolve()}")


def report_command(argv):
    values = flag_values()
    flags.DEFINE_list("phones", [], "results folders of android-bench run on the study's models", flag_values=values)
    (folder,) = parse(values, argv, "report FOLDER", 1, "FOLDER: of a study.")
    with quiet():
        from tfcompress.study.run import report
    print(f"Report: {report(folder, values.phones).resolve()}")


def add_command(argv):
    values = flag_values()
    flags.DEFINE_string("recipe", "your own file", "what the report says of the files", flag_values=values)
    folder, *given = parse(values, argv, "add FOLDER ID=FILE.tflite ...", 0, "FOLDER: of a study.")
    pairs = [one.partition("=") for one in given]
    if not pairs or not all(id and path for id, _, path in pairs):
        raise ValueError(f"Expected ID=FILE.tflite, once or more. Received: {given}.")
    with quiet():
        from tfcompress.study.run import add_to_study
    print(f"Report: {add_to_study(folder, {id: path for id, _, path in pairs}, values.recipe).resolve()}")


def data_command(argv):
    values = flag_values()
    flags.DEFINE_string("output", None, "the .npz file to write", short_name="o", flag_values=values)
    flags.DEFINE_integer("limit", None, "so many samples, picked at random", lower_bound=1, flag_values=values)
    (name,) = parse(values, argv, "data PRESET -o test.npz", 1, "PRESET: digits, ecg, ecg_full, ecg_resnet.")
    output = required(values, "output")
    with quiet():
        from tfcompress.study.cell import write_test_data
    print(f"{output}: {write_test_data(name, output, values.limit)} samples")

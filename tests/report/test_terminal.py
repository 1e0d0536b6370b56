from robust_jax.report import terminal

METHODS = {
    "original": {
        "clean_accuracy": 0.9,
        "clean_nll": 0.25,
        "benchmarks": {"imagenet_a": {"accuracy": 0.1}, "imagenet_c": {"mce": 0.766}},
    },
    "ours": {"clean_accuracy": 0.91, "benchmarks": {"imagenet_a": {"accuracy": 0.2}}},
}


def test_benchmarks_that_were_read():
    heading, rule, *lines = terminal.benchmarks({"methods": METHODS}).splitlines()
    assert heading.split() == ["benchmark", "method", "accuracy", "%", "mCE", "%"]
    assert set(rule) == {"-", " "}
    assert [line.split() for line in lines] == [
        ["imagenet_a", "original", "10.0", "-"],
        ["imagenet_a", "ours", "20.0", "-"],
        ["imagenet_c", "original", "-", "76.6"],
    ]
    assert terminal.benchmarks({"methods": {"ours": {"clean_accuracy": 1.0}}}) == ""


def test_all_columns_that_some_method_has():
    summary = {"methods": METHODS}
    assert "NLL" not in terminal.methods(summary)
    heading, _, original, ours = terminal.methods(summary, all_columns=True).splitlines()
    assert heading.endswith("NLL clean") and original.endswith("0.250") and ours.endswith("-")


def test_an_evaluation_says_how_many_images():
    methods = {"ours": {"clean_accuracy": 0.5, "accuracy_by_corruption": {"fog": [0.5]}}}
    summary = {"methods": methods, "images": {"clean": 2000, "imagenet_a": 7500}}
    first, table, fog = terminal.evaluation(summary | {"severities": {"corruption": [3]}})
    assert first == "images: clean 2,000, imagenet_a 7,500"
    assert table.endswith("50.0") and fog.startswith("ours accuracy %")


def test_corruptions_by_severity():
    said = terminal.corruptions({"fog": [0.5, 0.25], "gaussian_noise": [1.0, 0.0]}, (1, 5))
    assert [line.split() for line in said.splitlines()[2:]] == [
        ["fog", "50.0", "25.0", "37.5"],
        ["gaussian_noise", "100.0", "0.0", "50.0"],
    ]

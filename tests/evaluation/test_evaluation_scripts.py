"""The command lines as a user runs them."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_imq
import pytest

from evaluation import compare
from evaluation.IMQ import main as imq_main
from evaluation.measures import MEASURES
from evaluation.protocols import PROTOCOLS
from misc.errors import InputError
from misc.images import write_image
from tests.launch import ROOT, run


def test_imq_as_a_file_and_as_a_module(recorded, expected, tmp_path):
    folders = (recorded / "pred", recorded / "gt")
    file = run("IMQ.py", *folders, "--json", tmp_path / "a.json", folder=ROOT / "evaluation")
    module = run("-m", "evaluation.IMQ", *folders, "--skip-missing", "--json", tmp_path / "b.json", "--workers", 1)
    for done, name, reading in ((file, "a.json", "count_missing"), (module, "b.json", "skip_missing")):
        assert done.returncode == 0, done.stderr
        assert "8/8" in done.stderr  # progress
        assert "missing_image" in done.stderr
        data = json.loads((tmp_path / name).read_text())
        for threshold in ("0.5", "0.75"):
            for measure, row in expected[reading][threshold].items():
                assert data[threshold][measure] == pytest.approx(row, abs=1e-6)
        percent = f"{100 * expected[reading]['0.5']['MAD']['IMQ']:.2f}"
        assert re.search(rf"MAD +{re.escape(percent)}\b", done.stdout)
        for word in ("protocol", "region", "scaling", "instances", "TP 10", "percent"):
            assert word in done.stdout
    counts = json.loads((tmp_path / "a.json").read_text())["counts"]
    assert counts["0.5"] == {"TP": 10, "FP": 3, "FN": 7}
    assert (counts["images"], counts["missing_images"]) == (8, 1)


@pytest.mark.parametrize("script", ["evaluation.IMQ", "evaluation.eval"])
def test_bad_input_is_one_line_and_status_two(script, recorded, tmp_path):
    done = run("-m", script, tmp_path / "nowhere", recorded / "gt")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*nowhere: no such folder.*\n", done.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iou", "50"], "fractions"),
        (["--trimaps", "."], "--protocol trimap"),
        (["--protocol", "whole", "--skip-missing"], "--skip-missing"),
        (["--images", "."], "--html"),
        (["--workers", "-1"], "at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, recorded):
    with pytest.raises(ValueError, match=message):
        imq_main([str(recorded / "pred"), str(recorded / "gt"), *options])


def test_csv_has_one_line_per_instance(recorded, tmp_path, capsys):
    path = tmp_path / "out.csv"
    imq_main([str(recorded / "pred"), str(recorded / "gt"), "--csv", str(path), "--quiet"])
    lines = path.read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["# protocol imq", "# region", "# scaling", "# counts"]
    rows = list(csv.DictReader(lines[4:]))
    matched = [row for row in rows if row["TP@0.5"] == "1"]
    assert len(matched) == 10
    assert sum(bool(row["gt"]) for row in rows) == 17
    assert sum(bool(row["pred"]) for row in rows) == 13
    assert all(float(row["MAD"]) >= 0 for row in matched)


def test_a_measure_of_the_protocol_is_in_every_output(write_set, tmp_path, capsys, monkeypatch):
    """SAD, which IMQ leaves out, taken in: nothing but the protocol's list has to know."""
    monkeypatch.setitem(PROTOCOLS, "imq", replace(PROTOCOLS["imq"], measures=MEASURES))
    truths = [plain_imq.image_of(seed)[1] for seed in range(2)]
    folders = write_set([([0.97 * truth for truth in image], image) for image in truths])
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    imq_main([*map(str, folders), *(word for kind in files for word in (f"--{kind}", str(files[kind]))), "--quiet"])
    assert re.search(r"^SAD +\d", capsys.readouterr().out, re.M)
    figures = json.loads(files["json"].read_text())["0.5"]
    assert 0 < figures["SAD"]["IMQ"] == figures["MAD"]["IMQ"] < 1
    assert all("SAD" in path.read_text() for path in files.values())
    compare.main([str(files["json"])] * 2 + ["--resamples", "10"])
    assert re.search(r"^SAD .* 0 / 0 / 2$", capsys.readouterr().out, re.M)


def test_compare_says_which_measure_an_older_file_lacks(recorded, tmp_path):
    path = tmp_path / "older.json"
    imq_main([str(recorded / "pred"), str(recorded / "gt"), "--json", str(path), "--quiet"])
    path.write_text(path.read_text().replace('"Conn"', '"Other"'))
    with pytest.raises(InputError, match=r"older\.json: .*its pairs have no Conn"):
        compare.load(path)


@pytest.mark.parametrize("protocol", ["imq", "whole"])
def test_report_stands_alone_and_shows_the_worst_first(write_set, tmp_path, capsys, protocol):
    images = [plain_imq.image_of(seed, gts=2, preds=2) for seed in range(3)]
    images[1] = ([np.zeros_like(images[1][0][0])], images[1][1])  # misses everybody
    folders = write_set(images)
    write_image(tmp_path / "photos" / "0001.jpg", np.full((48, 56, 3), 90, np.uint8))
    page = tmp_path / "report.html"
    options = ["--protocol", protocol, "--html", str(page), "--images", str(tmp_path / "photos"), "--worst", "2"]
    imq_main([*map(str, folders), *options, "--quiet"])
    text = page.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|https?://(?!www\.w3\.org)""", text)
    assert text.count("data:image/jpeg;base64,") == 2 * 3 + 1  # truth, prediction, error; one photograph
    assert re.findall(r'<article id="image-(\d+)"', text)[0] == "0001"
    assert re.findall(r"<tr><th>(\d{4})</th>", text)[0] == "0001"
    chart = ET.fromstring(re.search(r"<svg.*?</svg>", text, re.S).group())
    lines = chart.findall(".//polyline")
    assert len(lines) == (5 if protocol == "imq" else 1)
    assert all(len(line.get("points").split()) == 10 for line in lines)


def test_names_in_the_report_are_no_markup(write_set, tmp_path, capsys):
    pred, gt = write_set([plain_imq.image_of(0)])
    for folder in (pred, gt):
        (folder / "0000").rename(folder / "<b>&")
    page = tmp_path / "report.html"
    imq_main([str(pred), str(gt), "--html", str(page), "--quiet"])
    assert "&lt;b&gt;&amp;" in page.read_text()
    assert "<b>&" not in page.read_text()


def test_eval_prints_what_it_writes(recorded, tmp_path):
    done = run(
        "eval.py", recorded / "pred", recorded / "gt", "--json", tmp_path / "ap.json", folder=ROOT / "evaluation"
    )
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "ap.json").read_text())
    assert f"{100 * data['mAP']:.2f}" in done.stdout.splitlines()[-1]
    assert data["mAP"] == pytest.approx(np.mean(list(data["AP"].values())))
    # ten pairs at IoU >= 0.5, of 17 true and 13 predicted instances
    assert 0 < data["AP"]["0.7000"] <= 2 * 10 / 30


def evaluated(images, write_set, tmp_path: Path, name: str, *options: str) -> Path:
    folders = write_set(images, name=name)
    path = tmp_path / f"{name}.json"
    imq_main([*map(str, folders), "--json", str(path), "--quiet", *options])
    return path


def test_compare_recomputes_the_figures_and_finds_the_better(write_set, tmp_path, capsys):
    worse = [plain_imq.image_of(seed) for seed in range(8)]
    better = [([0.5 * p + 0.5 * g for p, g in zip(*image)], image[1]) for image in worse]
    better = [([(np.rint(p * 255) / 255).astype(np.float32) for p in preds], gts) for preds, gts in better]
    a, b = (evaluated(images, write_set, tmp_path, name) for name, images in (("a", worse), ("b", better)))
    done = run("-m", "evaluation.compare", a, b, "--resamples", 500, "--json", tmp_path / "d.json")
    assert done.returncode == 0, done.stderr
    assert "B is better" in done.stdout
    rows = {row["measure"]: row for row in json.loads((tmp_path / "d.json").read_text())["differences"]}
    for key, path in (("a", a), ("b", b)):
        figures = json.loads(path.read_text())["0.5"]
        for measure, row in rows.items():
            assert row[key] == pytest.approx(figures[measure]["IMQ"], abs=1e-12)
    assert 0 < rows["MSE"]["low"] <= rows["MSE"]["difference"] <= rows["MSE"]["high"]
    assert rows["MSE"]["better"] + rows["MSE"]["worse"] + rows["MSE"]["equal"] == 8


def test_compare_finds_no_difference_to_itself(write_set, tmp_path, capsys):
    data = compare.load(evaluated([plain_imq.image_of(seed) for seed in range(3)], write_set, tmp_path, "a"))
    for row in compare.compare(data, data, resamples=50):
        assert (row.low, row.high, row.better, row.worse, row.equal) == (0, 0, 0, 0, 3)


def test_bootstrap_interval_matches_the_normal_one(write_set, tmp_path, capsys):
    """With equal instance counts the figure is a mean over images, whose interval is mean ± 1.96 standard errors."""
    rng = np.random.default_rng(0)
    truth = [plain_imq.image_of(seed, gts=1, preds=0)[1] for seed in range(60)]
    scaled = [[(np.rint(g * rng.uniform(0.93, 1) * 255) / 255).astype(np.float32) for g in gts] for gts in truth]
    a = compare.load(evaluated(list(zip(truth, truth)), write_set, tmp_path, "a"))
    b = compare.load(evaluated(list(zip(scaled, truth)), write_set, tmp_path, "b"))
    row = next(row for row in compare.compare(a, b, resamples=4000) if row.measure == "MAD")
    gains = compare.additive_counts(b, threshold=0.5)[:, 0] - compare.additive_counts(a, threshold=0.5)[:, 0]
    error = gains.std() / np.sqrt(len(gains))
    assert error > 0.005
    assert (row.low, row.high) == pytest.approx((gains.mean() - 1.96 * error, gains.mean() + 1.96 * error), rel=0.06)


def test_compare_refuses_other_data_and_other_protocols(write_set, tmp_path, capsys):
    images = [plain_imq.image_of(seed) for seed in range(3)]
    a = evaluated(images, write_set, tmp_path, "a")
    fewer = evaluated(images[:2], write_set, tmp_path, "fewer")
    changed = evaluated([(images[0][0], images[1][1]), *images[1:]], write_set, tmp_path, "changed")
    folders = [str(tmp_path / "a" / kind) for kind in ("pred", "gt")]
    imq_main([*folders, "--json", str(tmp_path / "p.json"), "--quiet", "--protocol", "whole"])
    (tmp_path / "text.json").write_text('{"0.5": {}}')
    for other, message in (
        (fewer, "1 images are in one only (0002)"),
        (changed, "true alphas of 1 images differ (0000)"),
        (tmp_path / "p.json", "protocol 'whole'"),
        (tmp_path / "text.json", "not a file written by IMQ.py"),
        (tmp_path / "none.json", "no such file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            compare.main([str(a), str(other)])
        assert message in str(error.value)


def test_benchmark_agrees_with_its_baseline():
    done = run("evaluation/benchmark.py", "--limit", 2, "--size", 120, 160, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    assert "baseline: plain arithmetic" in done.stdout
    assert re.search(r"evaluation\.IMQ, 1 worker", done.stdout)


def test_a_bad_file_is_named_and_the_other_images_are_evaluated(tmp_path: Path) -> None:
    alpha = np.full((9, 9), 255, np.uint8)
    for name in ("a", "b", "c"):
        for side in ("pred", "gt"):
            write_image(tmp_path / side / name / "00.png", alpha)
    (tmp_path / "pred" / "b" / "00.png").write_bytes(b"no picture")
    for script in ("IMQ", "eval"):
        done = run(
            "-m", f"evaluation.{script}", tmp_path / "pred", tmp_path / "gt", "--json", tmp_path / "x.json", "--quiet"
        )
        assert done.returncode == 1, done.stderr
        assert "error: " in done.stderr and "b/00.png: not a readable image" in done.stderr
        assert "1 images could not be evaluated" in done.stderr
        assert "2 images" in done.stdout and json.loads((tmp_path / "x.json").read_text())


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path: Path) -> None:
    alpha = np.full((9, 9), 255, np.uint8)
    for side in ("pred", "gt"):
        for name, file in (("=cmd|'calc'!A1", "00"), ("plain", "+1"), ("@x", "-2")):
            write_image(tmp_path / side / name / f"{file}.png", alpha)
    done = run("-m", "evaluation.IMQ", tmp_path / "pred", tmp_path / "gt", "--csv", tmp_path / "x.csv", "--quiet")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "x.csv").read_text().splitlines()
    cells = [cell for row in csv.reader(lines) for cell in row[:3]]
    assert "'=cmd|'calc'!A1" in cells and "'+1.png" in cells and "plain" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


# ------------------------------------------------------------------------------------------------- malformed figures

MALFORMED_FIGURES = {
    "no JSON": (lambda data: "{", "no JSON"),
    "deep": (lambda data: "[" * 100_000, "no JSON"),
    "a list": (lambda data: [data], "no protocol"),
    "no region": (lambda data: data["protocol"].pop("region"), "no protocol"),
    "other protocol": (lambda data: data["protocol"].update(name="ssim"), "an unknown protocol 'ssim'"),
    "images": (lambda data: data.update(images=[1]), "no per-image figures"),
    "no missing": (lambda data: first_image(data).pop("missing"), "lacks"),
    "gt": (lambda data: first_image(data).update(gt="00.png"), "lacks"),
    "digest": (lambda data: first_image(data).update(gt_crc32=5), "lacks"),
    "pairs": (lambda data: first_image(data).update(pairs="many"), "has no pairs"),
    "IoU": (lambda data: first_image(data)["pairs"][0].update(IoU="0.9"), "no IoU"),
    "400 digits": (lambda data: first_image(data)["pairs"][0].update(MAD=10**400), "no MAD"),
    "nan": (lambda data: first_image(data)["pairs"][0].update(MAD=float("nan")), "no MAD"),
}


def first_image(data: dict) -> dict:
    return next(iter(data["images"].values()))


@pytest.mark.parametrize("name", MALFORMED_FIGURES)
def test_malformed_figures_are_one_line(name: str, write_set, tmp_path: Path) -> None:
    truth = [plain_imq.image_of(0, gts=2, preds=0)[1]]
    path = evaluated(list(zip(truth, truth)), write_set, tmp_path, "a")
    data = json.loads(path.read_text())
    change, words = MALFORMED_FIGURES[name]
    changed = change(data)
    path.write_text(changed if words == "no JSON" else json.dumps([data] if name == "a list" else data))
    with pytest.raises(InputError, match=re.escape(words)) as error:
        compare.load(path)
    assert str(path) in str(error.value)


def test_where_there_is_no_figure_tables_show_a_dash(write_set, tmp_path: Path, capsys) -> None:
    truth = [plain_imq.image_of(0, gts=2, preds=0)[1]]
    nothing = [[np.zeros_like(gt) for gt in gts] for gts in truth]
    paths = [evaluated(list(zip(nothing, truth)), write_set, tmp_path, name, "--protocol", "whole") for name in "ab"]
    assert compare.main([*map(str, paths), "--resamples", "20"]) == 0
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "-: no true positive" in shown


@pytest.mark.parametrize(
    ("value", "words"), [(1, "no value above 1 of 255"), (0, "one value everywhere"), (255, "one value everywhere")]
)
def test_predictions_that_cannot_be_meant_are_warned_about(value: int, words: str, tmp_path: Path, capsys) -> None:
    alpha = np.zeros((20, 30), np.uint8)
    alpha[5:15, 5:25] = 255
    write_image(tmp_path / "gt" / "a" / "00.png", alpha)
    write_image(tmp_path / "pred" / "a" / "00.png", alpha // 255 if value == 1 else np.full_like(alpha, value))
    imq_main([str(tmp_path / "pred"), str(tmp_path / "gt")])
    assert words in capsys.readouterr().err

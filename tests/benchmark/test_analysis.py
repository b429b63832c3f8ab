"""The analysis and the conclusions, on results computed by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nulltta.benchmark.analysis import ArmResult, Panel, compare, panels
from nulltta.benchmark.contenders import RIVALS
from nulltta.benchmark.family import ComparisonFamily
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.report import words
from nulltta.benchmark.report.content import Protocol, Report, ReportTable, table
from nulltta.benchmark.report.figures import COLOURS
from nulltta.benchmark.report.gallery import GAP, SIDE, TITLE, gallery
from nulltta.benchmark.report.hacking import verdicts
from nulltta.benchmark.report.render import write_html, write_markdown
from nulltta.benchmark.store import BenchmarkFolder, ImageRow
from nulltta.evaluation.measures import pack
from nulltta.evaluation.significance import sign_test
from nulltta.images import save_png

PROMPTS = [str(i) for i in range(16)]


def rows(name: str, budget: str, target: float, held: float, wobble: float = 0.01) -> list[ImageRow]:
    """Rows of sixteen prompts and two draws: prompts differ, and a contender adds the same to each except for a
    wobble."""
    return [
        ImageRow(
            f"clip|{budget}|{name}", i, seed, 1.0, 2.0, 30.0, 10.0,
            {"clip": i / 10 + target + wobble * (-1) ** i, "clip-b": i / 10 + held + wobble * (-1) ** seed, "x": None},
        )
        for i in range(16)
        for seed in (0, 1)
    ]  # fmt: skip


@pytest.fixture
def panel() -> Panel:
    arms = [
        Arm(name=name, target="clip", budget=budget, method="plain")
        for name, budget in (("plain", ""), ("null-tta", "9"), ("dps", "9"), ("das", "9"), ("fk", "9"))
    ]
    plan = Plan(model="embedded", prompts=PROMPTS, seeds=[0, 1], arms=arms)
    found = rows("plain", "", 0, 0) + rows("null-tta", "9", 0.3, 0.1) + rows("dps", "9", 0.5, -0.3)
    [made] = panels(plan, found + rows("das", "9", 0.1, 0.05) + rows("fk", "9", 0.3, 0.05, 0.2))
    return made


def test_a_gain_is_paired_and_resamples_prompts(panel: Panel) -> None:
    gain = panel.gain("null-tta", "clip")
    assert gain is not None
    assert gain.n == 16
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.3, 0.3, 0.3))
    wide = panel.gain("fk", "clip")
    assert wide is not None
    assert wide.low < 0.3 < wide.high
    assert panel.results["das"].cost == 40
    assert panel.measures == ["clip", "clip-b"]  # "x" says nothing


def test_only_prompts_and_seeds_of_both_are_compared() -> None:
    before = {(p, s): float(p) for p in range(3) for s in range(2)}
    after = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 2.0, (9, 0): 100.0}
    gain = compare(before, after)
    assert gain is not None
    assert (gain.n, gain.mean) == (2, pytest.approx((2.0 + 1.0) / 2))
    assert compare(before, {(0, 0): 1.0}) is None


def test_seeds_of_a_prompt_do_not_count_as_more_prompts() -> None:
    """Ten seeds of two prompts have the information of two means."""
    before = {(p, s): 0.0 for p in range(2) for s in range(10)}
    gain = compare(before, {(p, s): float(p) for p, s in before})
    assert gain is not None
    assert (gain.n, gain.low, gain.high) == (2, 0.0, 1.0)


def test_the_frontier_has_the_contenders_that_no_other_beats_in_both_measures(panel: Panel) -> None:
    assert panel.frontier("clip-b", panel.results) == ["null-tta", "dps"]
    assert panel.frontier("clip-b", ("plain", "das", "dps")) == ["dps", "das"]


def test_the_conclusion_says_who_is_ahead_and_what_fell(panel: Panel) -> None:
    said = words.conclusion(panel, "clip-b", ComparisonFamily([panel]))
    assert "is ahead of das (" in said[1]
    assert "cannot be told from fk (" in said[1]
    assert "is behind dps (" in said[1]
    assert said[3] == "By the mean gains it is on the frontier of target and clip-b: null-tta and dps."
    assert "no other measure fell" in said[4]
    assert "These rose: clip-b (" in said[4]
    assert said[5].startswith("clip-b fell under dps (")
    family = ComparisonFamily([panel])
    assert [family.verdict(panel, "null-tta", "clip", over=name) for name in ("das", "dps", "fk")] == [
        "win", "loss", "tie",
    ]  # fmt: skip


def test_the_conclusion_says_how_the_facts_changed(panel: Panel) -> None:
    def with_facts(name: str, share: float) -> ArmResult:
        found = panel.results[name]
        scores = [{**row.scores, "facts": row.prompt / 10 + share} for row in found.rows]
        return replace(found, rows=[replace(row, scores=s) for row, s in zip(found.rows, scores, strict=True)])

    shares = {"plain": 0.5, "null-tta": 0.5, "dps": 0.2, "das": 0.5, "fk": 0.7}
    judged = replace(panel, results={name: with_facts(name, s) for name, s in shares.items()})
    said = words.conclusion(judged, "clip-b", ComparisonFamily([judged]))
    assert said[3].startswith("In the prompt's facts, which a judge reads off the picture, Null-TTA is ahead of dps (")
    assert "cannot be told from das" in said[3]
    assert "is behind fk" in said[3]
    assert said[-1].startswith("facts fell under dps (")


def test_the_conclusion_says_what_each_ablation_changes(panel: Panel) -> None:
    results = {name: panel.results[name] for name in ("plain", "null-tta")}
    for name, rival in ("selection", "das"), ("no-prior", "dps"), ("one-candidate", "fk"):
        results[name] = panel.results[rival]
    ablated = replace(panel, results=results)
    said = words.conclusion(ablated, "clip-b", ComparisonFamily([ablated]))
    assert said[-2].startswith("Against Null-TTA in full, clip is lower in selection (")
    assert "; higher in no-prior (" in said[-2]
    assert "; the same, as far as can be told, in one-candidate (" in said[-2]
    assert "clip-b is lower in selection (" in said[-1]


def test_gains_over_a_rival_are_in_units_of_plain_samplings_deviation(panel: Panel) -> None:
    plain = panel.gain("null-tta", "clip")
    assert plain is not None
    assert f"dps ({-0.2 / plain.spread:+.2f} SD" in words.conclusion(panel, "clip-b", ComparisonFamily([panel]))[1]


def test_the_verdict_on_a_contender_is_that_of_a_run(panel: Panel) -> None:
    found = verdicts(panel, ["null-tta", "dps"])
    assert [found[name].kind for name in ("null-tta", "dps")] == ["sound", "hacked"]
    assert "clip-b fell by 0.300 (0.300 to 0.300), 0.6 standard deviations" in found["dps"].reasons[0]
    few = replace(panel, results={n: replace(r, rows=r.rows[:10]) for n, r in panel.results.items()})
    assert verdicts(few, ["null-tta"]) == {}


def test_every_comparison_counts_in_the_correction(panel: Panel) -> None:
    """A difference that passes alone does not pass as one of many."""
    weak = {"clip": [1.0] * 12 + [-1.0] * 4}
    alone = sign_test(weak["clip"])
    assert alone < 0.1
    family = ComparisonFamily([panel])
    contenders, rivals, measures = 4, 3, 2
    assert len(family) == measures * (contenders + rivals)
    assert family.p(panel, "null-tta", "clip") == pytest.approx(sign_test([0.3] * 16) * len(family), rel=0.6)
    assert len(ComparisonFamily([panel, replace(panel)])) == 2 * len(family)
    assert family.p(panel, "null-tta", "nothing") == 1.0


def test_a_report_without_a_difference_says_tie_however_narrow_an_interval_is(panel: Panel) -> None:
    """Forty measures of pure noise: some interval excludes 0, and no verdict survives."""
    rng = np.random.default_rng(0)

    def noisy(name: str) -> ArmResult:
        found = panel.results[name].rows
        scores = [{"clip": 0.0, **{f"m{k}": float(rng.normal()) for k in range(40)}} for _ in found]
        return replace(panel.results[name], rows=[replace(r, scores=s) for r, s in zip(found, scores, strict=True)])

    noise = replace(panel, results={name: noisy(name) for name in ("plain", "null-tta")})
    family = ComparisonFamily([noise])
    gains = [noise.gain("null-tta", f"m{k}") for k in range(40)]
    assert any(gain is not None and (gain.low > 0 or gain.high < 0) for gain in gains)
    assert {family.verdict(noise, "null-tta", f"m{k}") for k in range(40)} == {"tie"}


def test_a_sure_difference_survives_a_thousand_comparisons(panel: Panel) -> None:
    many = [replace(panel) for _ in range(75)]
    family = ComparisonFamily(many)
    assert len(family) > 1000
    assert family.verdict(many[0], "null-tta", "clip") == "win"


def test_the_vendi_score_needs_two_draws() -> None:
    def row(prompt: int, seed: int, vector: tuple[float, float]) -> ImageRow:
        scores: Mapping[str, float | None] = {"clip": 1.0}
        return ImageRow("a", prompt, seed, 1.0, 1.0, 1.0, 0.0, scores, pack(np.array(vector)))

    result = ArmResult(
        Arm(name="a", target="clip", method="plain"), [row(0, 0, (1, 0)), row(0, 1, (0, 1)), row(1, 0, (1, 0))]
    )
    assert result.of("vendi") == {(0, 0): pytest.approx(2.0)}
    assert math.isnan(result.mean("absent"))


def test_contenders_are_compared_over_the_draws_that_both_have() -> None:
    def rows(arm: str, score: float, draws: int) -> list[ImageRow]:
        """Two prompts, whose pictures all differ, but for plain sampling's first two of the second prompt, of which the
        draws after these score 9 more."""
        return [
            ImageRow(
                arm, prompt, seed, None, None, 1.0, 0.0, {"clip": score + prompt * (1 + 9 * (seed > 1))},
                pack(np.eye(4)[0 if prompt and arm == "plain" and seed == 1 else seed]),
            )
            for prompt in range(2) for seed in range(draws)
        ]  # fmt: skip

    results = {
        "plain": ArmResult(Arm(name="plain", target="clip", method="plain"), rows("plain", 0.0, 4)),
        "best-of-n": ArmResult(Arm(name="best-of-n", target="clip", method="plain"), rows("best-of-n", 1.0, 2)),
    }
    partial = Panel("clip", "10", results)
    gained = [partial.gain("best-of-n", measure) for measure in ("clip", "vendi")]
    assert [gain and gain.mean for gain in gained] == pytest.approx([1.0, 0.5])  # plain's four draws would count 4.0
    # The unit of scores is that of all four draws, 0 and 5.5; that of diversities is of the first two, 2.0 and 1.0.
    assert [gain and gain.spread for gain in gained] == pytest.approx([5.5 / 2**0.5, 1 / 2**0.5])
    assert partial.level("best-of-n", "clip") == pytest.approx(2.75 + 1.0)
    assert partial.level("best-of-n", "clip", [1]) == pytest.approx(5.5 + 1.0)
    assert math.isnan(partial.level("best-of-n", "clip", [2]))
    assert partial.frontier("clip", results) == ["best-of-n"]  # though plain sampling's mean over four draws is higher
    shown = table(partial, ["plain", "best-of-n"], "clip", ComparisonFamily([partial]))
    assert shown.header[1:4] == ["images", "evaluations", "seconds"]
    assert [row[1:4] for row in shown.rows] == [["8", "1", "–"], ["4", "1", "–"]]  # nobody timed them


def test_names_are_escaped_in_html(tmp_path: Path) -> None:
    cells = ReportTable(["", "n|m"], [["a_b", "<1"]])
    report = Report([["x < y"]], [], [Protocol(["0.5*z(a) & b"], cells)], note="1 < 2", title="<b>")
    html = write_html(report, tmp_path / "a.html").read_text()
    assert "<h1>&lt;b&gt;</h1>" in html
    assert "<p>1 &lt; 2</p>" in html
    assert "<li>x &lt; y</li>" in html
    assert "<p>0.5*z(a) &amp; b</p>" in html
    assert "<td>&lt;1</td>" in html
    assert "http" not in html
    markdown = write_markdown(report, tmp_path / "a.md").read_text()
    assert "\n1 \\< 2\n" in markdown
    assert "- x \\< y" in markdown
    assert "0.5\\*z(a)" in markdown
    assert "| n\\|m |" in markdown


def test_the_gallery_of_an_unfinished_run_leaves_out_what_was_not_sampled(tmp_path: Path) -> None:
    arms = [Arm(name=name, target="clip", method="plain") for name in ("plain", "best-of-n", "dps")]
    plan = Plan(model="embedded", prompts=["a", "b", "c"], seeds=[0], arms=arms, gallery=3)
    store, found = BenchmarkFolder(tmp_path), Panel("clip", "10", {arm.name: ArmResult(arm, []) for arm in arms})
    names = [arm.name for arm in arms]
    assert gallery(store, plan, found, names) is None
    (tmp_path / "images").mkdir()
    for arm, prompt in ((arms[1], 2), (arms[0], 1)):
        save_png(Image.new("RGB", (8, 8), "red"), store.image(plan, arm.key, prompt, 0))
    shown = gallery(store, plan, found, names)
    assert shown is not None
    assert shown[1] == [1, 2]
    with Image.open(io.BytesIO(shown[0])) as sheet:
        assert sheet.width == 2 * (SIDE + GAP)  # plain and best-of-n
        pixels = sheet.convert("RGB")
        corners = [(x, TITLE + GAP + y) for x in (9, SIDE + GAP + 9) for y in (9, SIDE + GAP + 9)]
        assert [pixels.getpixel(place) == (255, 0, 0) for place in corners] == [True, False, False, True]


def test_nothing_is_said_of_a_frontier_that_is_not_known(panel: Panel) -> None:
    assert words.place(panel, "x") == []  # it applies to no image
    assert words.place(panel, "clip-b") != []


def test_every_rival_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(RIVALS)
    assert len(set(COLOURS.values())) == len(RIVALS)

"""The page in a real browser, from the disk: it renders, finds, opens, draws, and logs no error; light and dark."""

import csv
import time

import numpy as np
import pytest

HOSTILE = "</script><img src=x onerror=window.pwned=1>"
LABELS = "#tree .label"


def network(layers=12, seed=0):
    rng = np.random.default_rng(seed)
    state = {"embed.weight": rng.normal(size=(200, 32)).astype("f4")}
    for i in range(layers):
        state[f"layers.{i}.attn.weight"] = rng.normal(size=(32, 96)).astype("f4")
        state[f"layers.{i}.attn.bias"] = np.zeros(96, "f4")
        state[f"layers.{i}.norm.weight"] = np.ones(32, "f4")
    return state | {"head.weight": rng.normal(size=(4, 5)).astype("f4")}


@pytest.fixture(scope="module")
def one(viewed):
    return viewed({"model": network(), "epoch": 7, "note": HOSTILE})


@pytest.fixture(scope="module")
def two(viewed):
    before = network()
    after = {name: array + (0.1 if "layers.3" in name else 0) for name, array in before.items()}
    del after["head.weight"]
    return viewed(before, after | {"embed.weight": np.ones((7, 32), "f4"), "new.bias": np.ones(3, "f4")})


@pytest.fixture(autouse=True)
def no_errors(browser):
    """No test leaves anything in the browser's log: no error, no warning, nothing that the policy had to stop."""
    yield
    assert browser.errors() == []


def row(browser, label):
    """The row of the tree with that label."""
    found = [item for item in browser.all(LABELS) if item.text == label]
    assert found, browser.texts(LABELS)
    return found[0]


def keys(browser, *pressed):
    browser.driver.switch_to.active_element.send_keys(*pressed)


def retype(browser, text):
    """Type something else into the search, as a person would."""
    browser.one("#search").send_keys("\ue009a", "\ue000", "\ue003", text)  # control+a, no more keys held, backspace


def drawn(browser, css):
    """Wait until a chart has that in it, and give how many."""
    return browser.wait(f"return document.querySelectorAll({css!r}).length", f"{css} is not drawn")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)], ids=["desktop", "phone"])
def test_renders(browser, one, scheme, width, height):
    """The page shows the file, the folded tree and the treemap, in the width there is."""
    browser.open(one, width=width, height=height, scheme=scheme)
    assert browser.one("h1").text.endswith("model.pt")
    assert "layers.{0…11}" in browser.texts(LABELS)
    assert "×12" in browser.texts("#tree .times")
    assert drawn(browser, "#map .slice") > 5
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert ["epoch", "int", "7"] in [row.text.split() for row in browser.all("#other tbody tr")]


def test_light_and_dark(browser, one):
    """Colours follow the system until the page's button says otherwise; charts follow too."""
    colours = []

    def look():
        colours.append(tuple(browser.run(COLOURS)))

    browser.open(one, scheme="light")
    drawn(browser, "#map .slice")
    look()
    browser.prefer("dark")
    browser.wait(f"return document.querySelector('#map path.surface').style.fill !== {colours[0][1]!r}", "still light")
    look()
    browser.one("#theme").click()
    browser.wait(f"return document.querySelector('#map path.surface').style.fill !== {colours[1][1]!r}", "still dark")
    look()
    assert colours[0] == colours[2]
    assert colours[0][0] != colours[1][0]
    assert browser.one("#theme").text == "Dark"


def test_search_finds_as_you_type(browser, one):
    """What is typed narrows the tree to the tensors whose names have every word of it, opens it and marks them."""
    browser.open(one)
    browser.one("body").send_keys("/")
    keys(browser, "LAYERS.3 ")
    assert browser.one("#found").text == "3 of 38 tensors"
    keys(browser, "attn")
    assert browser.one("#found").text == "2 of 38 tensors"
    shown = browser.texts(LABELS)
    assert {"layers.3.attn.weight", "layers.3.attn.bias"} <= set(shown)
    assert not {"embed.weight", "layers.4.attn.weight"} & set(shown)
    assert {"layers.3", "attn"} <= set(browser.texts("#tree mark"))
    keys(browser, "zzz")
    assert (browser.one("#found").text, browser.texts(LABELS)) == ("0 of 38 tensors", [])
    retype(browser, "")
    assert "embed.weight" in browser.texts(LABELS)


def test_the_tree_by_keyboard(browser, one):
    """Arrows go through the tree, open and close it; rows are made when they are opened; Enter takes a tensor."""
    browser.open(one)
    browser.one("#search").click()
    keys(browser, "\ue015")  # down
    focused = "return document.activeElement.querySelector('.label').textContent"
    assert browser.run(focused) == browser.texts(LABELS)[0]
    keys(browser, "\ue010")  # end
    keys(browser, "\ue011", "\ue015")  # home, down
    assert browser.run(focused) == browser.texts(LABELS)[1] == "layers.{0…11}"
    keys(browser, "\ue012")  # left: closes
    assert "attn" not in browser.texts(LABELS)
    keys(browser, "\ue014")  # right: opens
    assert "attn" in browser.texts(LABELS)
    assert "layers.5.norm.weight" not in browser.texts(LABELS)
    row(browser, "norm.weight").find_element("xpath", "..").find_element("css selector", ".twist").click()
    assert "layers.5.norm.weight" in browser.texts(LABELS)
    keys(browser, "\ue015", "\ue007")  # down, enter
    assert browser.one("#tensor-title").text == "layers.0.norm.weight"
    assert len(browser.all('#tree [tabindex="0"]')) == 1


def test_a_tensor(browser, one):
    """A chosen tensor has its numbers, a histogram, and a heat map; another scale draws the histogram again."""
    browser.open(one)
    row(browser, "embed.weight").click()
    told = dict(zip(browser.texts("#tensor dt"), browser.texts("#tensor dd")))
    weight = network()["embed.weight"].astype(float)
    assert [told[key] for key in ("shape", "dtype", "size", "zeros", "NaN")] == [
        "200×32",
        "float32",
        "25.6 kB",
        "0",
        "0",
    ]
    assert [float(told[key]) for key in ("min", "max", "std")] == pytest.approx(
        [weight.min(), weight.max(), weight.std()], rel=1e-4
    )
    assert drawn(browser, "#tensor .barlayer .point") > 20
    assert drawn(browser, "#tensor .heatmaplayer image") == 1
    heights = (
        "return [...document.querySelectorAll('#tensor .barlayer .point path')].map((p) => p.getAttribute('d')).join()"
    )
    linear = browser.run(heights)
    browser.one("#tensor .choice button:last-child").click()
    browser.wait(f"{heights} !== {linear!r}", "the scale is as it was")


def test_a_row_of_layers(browser, one):
    """Equal tensors of many layers are drawn from the first to the last; a point leads to its tensor."""
    browser.open(one)
    row(browser, "norm.weight").click()
    assert browser.one("#tensor-title").text == "layers.{0…11}.norm.weight"
    assert drawn(browser, "#tensor .scatterlayer .point") == 36
    assert "layers.7.norm.weight" not in browser.texts(LABELS)
    browser.run("document.querySelector('#tensor .chart').emit('plotly_click', {points: [{pointIndex: 7}]})")
    assert browser.one("#tensor-title").text == "layers.7.norm.weight"
    assert browser.texts('#tree [aria-selected="true"] .label') == ["layers.7.norm.weight"]


def test_the_treemap_leads_to_a_tensor(browser, one):
    """A click on a tensor's box takes it; one on a module's goes in, and the path above comes out again."""
    browser.open(one)
    drawn(browser, "#map .slice")
    click_box(browser, "embed.weight")
    browser.wait("return !document.querySelector('#tensor').hidden", "nothing was taken")
    assert browser.one("#tensor-title").text == "embed.weight"
    browser.run("document.querySelector('#map').scrollIntoView()")
    click_box(browser, "layers.{0…11}")
    names = "return [...document.querySelectorAll('#map .slicetext')].map((text) => text.textContent)"
    browser.wait(f"{names}.every((name) => !name.startsWith('embed'))", "still outside")
    assert any(name.startswith("attn") for name in browser.run(names)), browser.run(names)
    assert browser.texts("#map .path button") == ["all", "layers.{0…11} ×12"]
    browser.one("#map .path button").click()
    browser.wait(f"{names}.some((name) => name.startsWith('embed'))", "still inside")


def click_box(browser, name):
    """Click a box of the treemap where its name is: below the name of a module are its parts."""
    text = next(text for text in browser.all("#map .slicetext") if text.text.startswith(name))
    browser.point(text)


def test_two_files(browser, two):
    """What was added, removed, reshaped and changed is told and listed; a layer has a bar; a tensor shows both."""
    browser.open(two)
    assert browser.texts("#changes > .choice button") == [
        "3 changed",
        "1 added",
        "1 removed",
        "1 other shape",
        "33 equal",
    ]
    assert drawn(browser, "#changes .barlayer .point") == 24
    listed = browser.texts("#changes tbody th")
    assert listed == [f"layers.3.{name}" for name in ("attn.weight", "norm.weight", "attn.bias")]  # the last was zero
    badges = dict(zip(browser.texts(LABELS), browser.run(BADGES)))
    assert (badges["weight"], badges["bias"], badges["attn"]) == ("10.1%", "∞", "10.1%")
    assert (badges["embed.weight"], badges["new.bias"], badges["head.weight"]) == ("shape", "added", "removed")
    browser.all("#changes tbody button")[listed.index("layers.3.attn.weight")].click()
    assert browser.one("#tensor-title").text == "layers.3.attn.weight"
    assert drawn(browser, "#tensor .heatmaplayer image") == 2
    assert drawn(browser, "#tensor .barlayer .point") > 10
    assert drawn(browser, "#tensor .scatterlayer .js-line") == 1
    assert browser.texts("#tensor thead th")[:2] == ["A", "B"]
    titles = "return [...document.querySelectorAll('#tensor thead abbr')].map((e) => e.title.split('/').at(-1))"
    assert browser.run(titles) == ["before.pt", "after.pt"]


COLOURS = """
return [getComputedStyle(document.body).backgroundColor, document.querySelector("#map path.surface").style.fill]
"""
BADGES = """
return [...document.querySelectorAll("#tree .row")].map((row) => row.querySelector(".badge")?.textContent ?? "")
"""


def test_hostile_names_stay_text(browser, viewed):
    """Markup in names is shown as it is written, in the tree, in charts and in what hovers over them; none of it runs."""
    state = {
        f"{HOSTILE}.weight": np.arange(9.0).reshape(3, 3),
        "<b>bold</b> %{label} &lt;i&gt;.weight": np.ones((3, 3)),
        '" onmouseover="window.pwned=1': np.ones(4),
        "<a href='javascript:window.pwned=1'>x</a>": np.ones(5),
        "__proto__": np.ones(5),
        "toString": np.ones(5),
    }
    browser.open(viewed(state, {name: array * 2 for name, array in state.items()}))
    assert set(browser.texts(LABELS)) == set(state)
    drawn(browser, "#map .slice")
    drawn(browser, "#changes .barlayer .point")
    shown = " ".join(browser.texts("#map .slicetext"))
    assert "</script><img src=x onerror=window.pwned=1>" in shown
    assert "<b>bold</b> %{label} &lt;i&gt;" in shown
    for item in browser.all("#tree .row"):
        item.click()
        drawn(browser, "#tensor .barlayer .point")
        assert browser.texts("#tensor .note") == []
    assert browser.all("main img, main a, main b, svg a") == []
    assert browser.run("return window.pwned ?? null") is None


def test_the_policy_stops_what_is_not_ours(browser, one):
    """No script that is not of the page runs, and nothing is asked of a network, even by a script that did run."""
    browser.open(one)
    script = """
    const done = arguments[arguments.length - 1];
    const added = document.createElement("script");
    added.textContent = "window.pwned = 1";
    document.body.append(added);
    const image = document.createElement("img");
    image.onerror = () => fetch("http://localhost:9/").then(() => done("reached"), () => done(window.pwned ?? "stopped"));
    image.src = "http://localhost:9/x.png";
    """
    assert browser.driver.execute_async_script(script) == "stopped"
    stopped = browser.errors()
    assert all("Content Security Policy" in message for message in stopped)
    for what in ("script", "image", "connect"):
        assert any(what in message for message in stopped), what


def test_headers_alone(browser, viewed):
    """A page without statistics has the tree and the treemap, and says what is not there."""
    browser.open(viewed(network(), options=["--headers"]))
    row(browser, "embed.weight").click()
    assert browser.texts("#tensor dt") == ["shape", "dtype", "size"]
    assert "headers" in browser.one("#tensor .note").text


def test_tensors_without_a_number(browser, viewed):
    """An empty tensor, and one of NaN only, are told as what they are; a scalar and equal elements have a histogram."""
    state = {"empty": np.ones((0, 3)), "nan": np.full((3, 3), np.nan), "scalar": np.array(5), "equal": np.full(9, 0.1)}
    browser.open(viewed(state))
    for name in ("empty", "nan"):
        row(browser, name).click()
        assert browser.texts("#tensor .note") == ["It does not have any finite elements."]
    assert "odd" in browser.run("return [...document.querySelectorAll('#tensor dl > div')].map((e) => e.className)")
    for name in ("scalar", "equal"):
        row(browser, name).click()
        assert drawn(browser, "#tensor .barlayer .point") == 1


def test_thousands_of_tensors(browser, viewed):
    """However many tensors there are, only the rows that can be seen are made; a search of them all opens a few."""
    state = {f"part{i // 500}.block_{i}_x.{name}": np.ones((2, 2 + i % 7), "f4") for i in range(2000) for name in "ab"}
    browser.open(viewed(state))
    assert len(browser.all("#tree .row")) < 250
    browser.one("#search").send_keys("block_1321_")
    assert browser.one("#found").text == "2 of 4,000 tensors"
    assert "block_1321_x" in browser.texts(LABELS)
    retype(browser, "block")
    assert browser.one("#found").text == "4,000 of 4,000 tensors"
    assert len(browser.all("#tree .row")) < 800


@pytest.fixture(scope="module")
def run(viewed):
    """A run whose optimizer is in front of the model, is larger, and knows the names of the parameters."""
    model = network(layers=3)
    groups = [{"params": list(range(len(model))), "param_names": list(model), "lr": 0.1}]
    state = {i: {"exp_avg": array, "exp_avg_sq": array**2} for i, array in enumerate(model.values())}
    return viewed({"optimizer": {"state": state, "param_groups": groups}, "model": model, "epoch": 7})


def test_the_model_is_first_and_open(browser, run):
    """The model is above its optimizer and open, the optimizer is closed, however large; the treemap begins in the model."""
    browser.open(run)
    labels = browser.texts(LABELS)
    assert labels[:2] == ["model", "embed.weight"]
    assert labels[-1] == "optimizer"
    assert "16k parameters" in browser.texts("#tree .kind")  # of the model, in its row
    assert "16,020 parameters in model" in browser.one("#about .summary").text
    drawn(browser, "#map .slice")
    assert browser.texts("#map .path button") == ["all", "model"]


def test_an_optimizers_state_has_the_names_of_parameters(browser, run):
    """Rows of the optimizer have the parameters' names, folded over the layers; a tensor says what the file calls it."""
    browser.open(run)
    browser.one("#search").send_keys("attn.weight exp_avg_sq")
    assert browser.one("#found").text == "3 of 33 tensors"
    keys(browser, "\ue007")
    assert browser.one("#tensor-title").text == "state.layers.{0…2}.attn.weight.exp_avg_sq"
    retype(browser, "state.layers.1.attn.weight exp_avg_sq")
    keys(browser, "\ue007")
    assert browser.one("#tensor-title").text == "state.layers.1.attn.weight.exp_avg_sq"
    assert browser.one("#tensor .note.named span").text == "In the file: state.4.exp_avg_sq"


def test_enter_opens_the_first_match(browser, one):
    """Enter in the search selects the first tensor found and keeps the search; ↓ and Enter in the tree do the same."""
    browser.open(one)
    browser.one("#search").click()
    keys(browser, "3 norm", "\ue007")
    assert browser.one("#tensor-title").text == "layers.3.norm.weight"
    assert browser.one("#search").get_attribute("value") == "3 norm"
    assert browser.texts('#tree [aria-selected="true"] .label') == ["layers.3.norm.weight"]
    retype(browser, "5 norm")
    keys(browser, "\ue015", "\ue007")
    assert browser.one("#tensor-title").text == "layers.5.norm.weight"
    retype(browser, "zzz")
    keys(browser, "\ue007")
    assert browser.one("#tensor-title").text == "layers.5.norm.weight"


def test_addresses(browser, run):
    """A selection is in the address, which opens it again, also by going back; with several roots the root is in it."""
    browser.open(run)
    row(browser, "embed.weight").click()
    address = browser.driver.current_url
    assert address.endswith("#root=model&tensor=embed.weight")
    row(browser, "head.weight").click()
    browser.driver.back()
    browser.wait("return document.querySelector('#tensor-title').textContent === 'embed.weight'", "not gone back")
    for fragment, title in (
        ("root=optimizer&tensor=state.embed.weight.exp_avg", "state.embed.weight.exp_avg"),
        ("tensor=layers.{0…2}.norm.weight", "layers.{0…2}.norm.weight"),
        ("tensor=layers.1.norm.weight", "layers.1.norm.weight"),
    ):
        browser.driver.get("about:blank")
        browser.driver.get(f"{address.partition('#')[0]}#{fragment}")
        browser.wait("return document.documentElement.dataset.ready === 'yes'", "the page is not ready")
        assert browser.one("#tensor-title").text == title
        assert len(browser.all('#tree [aria-selected="true"]')) == 1
    browser.run("location.hash = 'tensor=<img src=x onerror=window.pwned=1>'")
    browser.wait("return document.querySelector('#found').textContent.includes('not in this page')", "nothing is said")


def test_the_largest_rows_first(browser, one):
    """The tree can be sorted by size, at every level, and back into the order of the file; what is open stays open."""
    browser.open(one)
    before = browser.texts(LABELS)
    browser.one("#order button:last-child").click()
    labels = browser.texts(LABELS)
    assert labels[:2] == ["layers.{0…11}", "attn"]
    assert sorted(labels) == sorted(before)
    browser.one("#order button:first-child").click()
    assert browser.texts(LABELS) == before


def test_layers_are_whole_numbers(browser, viewed):
    """The axis over layers shows the numbers that are in the names, and nothing between them."""
    browser.open(viewed({f"h.{i}.w": np.full(3, i, "f4") for i in (2, 3, 4, 7)}))
    row(browser, "h.{2…4,7}.w").click()
    assert drawn(browser, "#tensor .scatterlayer .point") == 12
    ticks = browser.texts("#tensor .xtick text")
    assert ticks == [str(number) for number in range(2, 8)]


def test_copy(browser, one):
    """The button beside a name copies it, as it is in the file."""
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    browser.open(one)
    row(browser, "embed.weight").click()
    browser.one("#tensor .copy").click()
    browser.wait("return document.querySelector('#tensor .copy').textContent === 'copied'", "not copied")
    read = "const done = arguments[arguments.length - 1]; navigator.clipboard.readText().then(done)"
    assert browser.driver.execute_async_script(read) == "embed.weight"


def downloaded(browser, folder, click):
    """The file that a click downloads, when it is complete."""
    folder.mkdir()
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    click()
    end = time.monotonic() + 60
    while not (found := [path for path in folder.iterdir() if path.suffix in (".csv", ".png")]):
        assert time.monotonic() < end, list(folder.iterdir())
        time.sleep(0.02)
    return found[0]


def test_the_table_as_csv(browser, viewed, tmp_path):
    """The table of all tensors is saved as CSV, each name once; a name that begins like a formula is text."""
    state = {"w": np.array([[1, 3]], "f4"), "=1+1": np.ones(2), 'a,"b"': np.ones((0, 3))}
    browser.open(viewed(state, {"w": np.array([[1, 1]], "f4"), "=1+1": np.ones(2), 'a,"b"': np.ones((0, 3))}))
    saved = downloaded(browser, tmp_path / "csv", browser.one("#csv").click)
    table = {line["name"]: line for line in csv.DictReader(saved.read_text().splitlines())}
    assert set(table) == {"w", "'=1+1", 'a,"b"'}
    assert [table["w"][key] for key in ("shape A", "dtype B", "elements A", "bytes A", "max A", "max B", "status")] == [
        *("1×2", "float32", "2", "8", "3", "1", "changed"),
    ]
    assert float(table["w"]["relative change"]) == pytest.approx(2 / 10**0.5, rel=1e-5)


def test_a_chart_as_png(browser, one, tmp_path):
    """Every chart has a button that saves it as PNG."""
    browser.open(one)
    drawn(browser, "#map .slice")
    saved = downloaded(browser, tmp_path / "png", browser.one("#map .modebar-btn").click)
    assert saved.read_bytes().startswith(b"\x89PNG\r\n")


def test_flat_names_are_grouped_in_the_treemap(browser, viewed):
    """Thousands of names without dots are boxes of neighbours, whose labels can be read, and which open like modules."""
    state = {f"layer{i}_{kind}": np.ones((4, 3), "f4") for i in range(500) for kind in ("w", "b")}
    browser.open(viewed(state, options=["--headers"]))
    drawn(browser, "#map .slice")
    assert 12 < len(browser.all("#map .slice")) <= 42
    assert "layer13 – 25" in browser.run(NAMES)
    sizes = (
        "return [...document.querySelectorAll('#map .slicetext')].map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(browser.run(sizes)) >= 10
    click_box(browser, "layer13 – 25")
    browser.wait(f"{NAMES}.some((name) => name.startsWith('layer13_w'))", "the group is not open")
    assert browser.texts("#map .path button") == ["all", "layer13 – 25"]
    click_box(browser, "layer13_w")
    browser.wait("return document.querySelector('#tensor-title')?.textContent === 'layer13_w'", "nothing was taken")


def test_a_phone_shows_shape_and_dtype(browser, one):
    """Rows on a phone have a second line with shape and dtype, and nothing is wider than the screen."""
    browser.open(one, width=390, height=844)
    kind = row(browser, "embed.weight").find_element("xpath", "..").find_element("css selector", ".kind")
    assert kind.is_displayed()
    assert kind.text == "200×32 float32"
    assert kind.rect["y"] > row(browser, "embed.weight").rect["y"]


NAMES = "return [...document.querySelectorAll('#map .slicetext')].map((e) => e.firstChild?.textContent ?? '')"

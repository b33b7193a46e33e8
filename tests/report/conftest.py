"""A real browser: Chromium without a window, driven through ChromeDriver; and pages for it, opened from the disk."""

import json
import os
import shutil
import time

import pytest

# No sandbox for root, nothing asked of a network that is not there.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--no-first-run",
)


class Browser:
    """A browser that shows one page at a time. `errors` are what it logged since the page was opened."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, *, width=1400, height=900, scheme="light"):
        """Open a file and wait until it says that it is drawn."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.prefer(scheme)
        self.driver.get_log("browser")
        self.driver.get(page.absolute().as_uri())
        self.wait("return document.documentElement.dataset.ready === 'yes'", "the page is not ready")

    def prefer(self, scheme):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, script, what):
        """Until the script gives something true; far longer than a busy machine needs."""
        end = time.monotonic() + 60
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"{what}; logged: {self.errors()}"
            time.sleep(0.02)
        return found

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def one(self, css):
        return self.driver.find_element("css selector", css)

    def texts(self, css):
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", css)

    def point(self, element):
        """Click where the element is, whatever is there."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element(element).click().perform()

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium; the test is skipped where it, its driver or selenium is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is not installed")
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian's packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    log = tmp_path_factory.mktemp("chromedriver") / "log"
    service = webdriver.ChromeService(found["chromedriver"], log_output=os.fspath(log))
    driver = webdriver.Chrome(options=options, service=service)
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="session")
def viewed(tmp_path_factory):
    """A function that saves states, as numpy arrays, and gives the page that `statedict view` makes of them."""
    from statedict import save
    from statedict.cli import main

    def make(*states, options=()):
        place = tmp_path_factory.mktemp("viewed")
        files = []
        for name, state in zip(("before.pt", "after.pt") if len(states) > 1 else ("model.pt",), states):
            save(state, place / name)
            files.append(str(place / name))
        page = place / "page.html"
        with pytest.raises(SystemExit) as ended:
            main(["view", *files, "--output", str(page), *options])
        assert not ended.value.code, json.dumps(files)
        return page

    return make

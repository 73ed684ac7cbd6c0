"""The picture of the page in docs/running.md, of a service that runs: `python tests/benchmarks/page_picture.py URL OUT.jpg`."""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright


def main():
    url, out = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.get_by_role("button", name="Use a synthetic hand").click()
        page.locator("#chosen li").wait_for()
        page.locator("#send").click()
        page.get_by_role("button", name="Download PNG").wait_for()
        page.locator("#results-title").evaluate("title => title.blur()")
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=out, type="jpeg", quality=86)
        browser.close()


if __name__ == "__main__":
    main()

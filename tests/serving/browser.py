"""A browser for tests of pages: Debian's Chromium, which notes whatever the page asks for and complains of."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn


@contextmanager
def run_chromium():
    """Playwright's browser over Debian's Chromium. Skips without it, but fails in CI."""
    program = shutil.which("chromium")
    if program is None:
        missing = "Chromium is not installed (Debian package chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def serve_app(app):
    """The address of an app that a thread serves on loopback."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def silent_page(browser, address, **options):
    """A page that must ask nothing of another host, keep nothing, and write no error or breach of its policy to the console."""
    context = browser.new_context(**options)
    context.set_default_timeout(30_000)
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
        kept = page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie]")
    finally:
        context.close()
    assert [url for url in asked if not url.startswith((f"{address}/", f"blob:{address}/", "data:"))] == []
    assert kept == [0, 0, ""]
    # Chromium reports every answer of 400 and more; that is no fault of the page.
    assert [text for text in said if not text.startswith("Failed to load resource: the server responded")] == []

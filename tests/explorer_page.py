"""The explorer's page in a headless Chromium."""

import json
import time

import chromium


def quoted(value):
    """A value as a JavaScript expression; a list as the expression of its JSON."""
    return json.dumps(json.dumps(value, separators=(",", ":"), ensure_ascii=False) if isinstance(value, list) else value)


class Visitor(chromium.Browser):
    """A browser that may ask one server on this machine."""

    def visit(self, address, width=1200, height=900):
        """Load the page, and wait until the gallery or the pipeline's part is there."""
        self.address = address
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass
        self.until("document.querySelector('#top table, #draw')")

    @property
    def failures(self):
        """Console errors and requests of other machines."""
        return [e for e in self.errors if not e.startswith((f"request of {self.address}", "request of blob:"))]

    def until(self, condition, seconds=60):
        """The value of a JavaScript expression once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.run(f"(() => {{ const found = {condition}; return found instanceof Node || found }})()"):
                return found
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {condition}; errors: {self.failures}")

    def text(self, selector):
        """The text of an element as a reader sees it."""
        return self.run(f"document.querySelector({quoted(selector)}).innerText")

    def enter(self, selector, value):
        """Put a value into a field, as typing does."""
        self.run(
            f"(() => {{ const field = document.querySelector({quoted(selector)});"
            f"Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, {quoted(value)});"
            "for (const kind of ['input', 'change', 'pointerup']) field.dispatchEvent(new Event(kind, {bubbles: true})) })()"
        )

"""The page at `/`: plain files, and the policy that a browser is to hold them to."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""Served under `/static/`, and `index.html` of it at `/`."""

_LOGO_STYLE = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='"

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_LOGO_STYLE}",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing but what this server serves. The hash admits the style element of Lightweight Charts' logo."""

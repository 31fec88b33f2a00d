"""What does a Backend's tls come to, and what makes the Backend unusable?"""

from __future__ import annotations

import textwrap

import pytest

from discovery.backend import Endpoint, UpstreamTLS
from discovery.describe import describe_endpoint
from tests.discovery.loading import LoadText, condition_of
from tests.support.certificates import Authority

ONE, TWO = Authority().pem, Authority().pem


def config_map(pem: str, name: str = "ca", data: str = "ca.crt") -> str:
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data:
  {data}: |
{textwrap.indent(pem, "    ")}
---
"""


def manifests(tls: str, endpoint: str = "fqdn: {hostname: model.example, port: 443}") -> str:
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm}}
spec:
  rules:
  - backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: b}}
spec:
  endpoints: [{{{endpoint}}}]
  tls: {tls}
---
"""


CA = "{group: '', kind: ConfigMap, name: ca}"


def endpoint_of(load_text: LoadText, text: str) -> Endpoint:
    compiled = load_text.compiled(text)
    assert compiled.problems == ()
    (endpoint,) = compiled.membership["Backend/default/b"]
    return endpoint


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        pytest.param(
            f"{{caCertificateRefs: [{CA}]}}",
            UpstreamTLS(server_name="model.example", authorities=ONE.strip()),
            id="authorities-of-its-own",
        ),
        pytest.param(
            "{wellKnownCACertificates: System, sni: other.example, minVersion: '1.3'}",
            UpstreamTLS(server_name="other.example", min_version="1.3"),
            id="system",
        ),
        pytest.param(
            "{insecureSkipVerify: true, maxVersion: '1.2', minVersion: Auto}",
            UpstreamTLS(server_name="model.example", verifies=False, max_version="1.2"),
            id="unverified",
        ),
    ],
)
def test_settings(load_text: LoadText, tls: str, expected: UpstreamTLS) -> None:
    endpoint = endpoint_of(load_text, manifests(tls) + config_map(ONE))
    assert endpoint.tls == expected
    assert str(endpoint.url) == "https://model.example/"
    assert endpoint.host == b"model.example"
    assert endpoint.id == f"tls-{expected.fingerprint}/model.example:443"


def test_several_authorities_and_an_address(load_text: LoadText) -> None:
    other = CA.replace("name: ca", "name: more")
    text = manifests(f"{{caCertificateRefs: [{CA}, {other}]}}", "ip: {address: 192.0.2.1, port: 8443}")
    tls = endpoint_of(load_text, text + config_map(ONE) + config_map(TWO, "more")).tls
    assert tls == UpstreamTLS(server_name="192.0.2.1", authorities=f"{ONE.strip()}\n{TWO.strip()}")


def test_other_authorities_are_another_endpoint(load_text: LoadText) -> None:
    text = manifests(f"{{caCertificateRefs: [{CA}]}}")
    one, two = (endpoint_of(load_text, text + config_map(pem)).id for pem in (ONE, TWO))
    assert one != two


def test_certificates_are_not_shown(load_text: LoadText) -> None:
    endpoint = endpoint_of(load_text, manifests(f"{{caCertificateRefs: [{CA}]}}") + config_map(ONE))
    shown = describe_endpoint(endpoint)
    assert shown["tls"]["authorities"] == "1 of its own"
    assert "CERTIFICATE" not in str(shown)


@pytest.mark.parametrize(
    ("tls", "reason", "message"),
    [
        pytest.param("{}", "NoValidCACertificate", "needs caCertificateRefs", id="nothing-to-verify-by"),
        pytest.param("{sni: a.example}", "NoValidCACertificate", "needs caCertificateRefs", id="a-name-alone"),
        pytest.param(
            "{wellKnownCACertificates: example.com/ours}", "InvalidKind", "only System", id="unknown-authorities"
        ),
        pytest.param(
            "{caCertificateRefs: [{group: '', kind: Secret, name: ca}]}", "InvalidKind", "only ConfigMap", id="secret"
        ),
        pytest.param(
            "{caCertificateRefs: [{group: '', kind: ConfigMap, name: none}]}",
            "InvalidCACertificateRef",
            "there is no ConfigMap default/none with ca.crt",
            id="missing",
        ),
        pytest.param(
            "{caCertificateRefs: [{group: '', kind: ConfigMap, name: bad}]}",
            "InvalidCACertificateRef",
            "it holds no certificate in PEM",
            id="no-pem",
        ),
        pytest.param(
            "{wellKnownCACertificates: System, clientCertificateRef: {name: s}}",
            "UnsupportedValue",
            "Secrets are not read",
            id="client-certificate",
        ),
        pytest.param(
            "{wellKnownCACertificates: System, ciphers: [ECDHE-RSA-AES128-GCM-SHA256]}",
            "UnsupportedValue",
            "tls.ciphers is not supported",
            id="ciphers",
        ),
        pytest.param(
            "{wellKnownCACertificates: System, signatureAlgorithms: [rsa_pss_rsae_sha256]}",
            "UnsupportedValue",
            "tls.signatureAlgorithms is not supported",
            id="signature-algorithms",
        ),
        pytest.param(
            "{wellKnownCACertificates: System, ecdhCurves: [X25519]}",
            "UnsupportedValue",
            "tls.ecdhCurves is not supported",
            id="curves",
        ),
        pytest.param(
            "{insecureSkipVerify: true, minVersion: '1.0', maxVersion: '1.1'}",
            "UnsupportedProtocol",
            "1.2 is the lowest",
            id="old-versions",
        ),
    ],
)
def test_what_cannot_be_followed_makes_the_backend_unusable(
    load_text: LoadText, tls: str, reason: str, message: str
) -> None:
    text = manifests(tls) + config_map("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "bad")
    compiled = load_text.compiled(text)
    (ref,) = compiled.routing.rules[0].backend_refs
    assert ref.refusal is not None
    assert message in ref.refusal.message
    assert compiled.membership["Backend/default/b"] == ()
    assert condition_of(compiled.routing, "HTTPRoute", "llm", "ResolvedRefs").reason == reason
    assert message in condition_of(compiled.routing, "Backend", "b", "Accepted").message


def test_warnings(load_text: LoadText) -> None:
    tls = "{insecureSkipVerify: true, minVersion: '1.1', alpnProtocols: [h2], fingerprints: [JA3]}"
    lines = load_text.lines(manifests(tls))
    assert len(lines) == 3
    assert all(line.startswith("warning:") or ": warning" in line or "tls." in line for line in lines)
    compiled = load_text.compiled(manifests("{insecureSkipVerify: true, alpnProtocols: [http/1.1]}"))
    assert compiled.problems == ()


def test_a_config_map_without_either_is_skipped(load_text: LoadText) -> None:
    (line,) = load_text.lines(config_map(ONE, data="other.crt"))
    assert "skipped: ConfigMap without the label" in line

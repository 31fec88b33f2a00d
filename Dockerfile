# Two stages: the first installs what requirements.txt locks by hash, the second holds only the result.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/pointsman
COPY requirements.txt ./
RUN /opt/pointsman/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE routes.yaml ./
COPY app app
COPY middleware middleware
COPY discovery discovery
RUN /opt/pointsman/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.13-slim
COPY --from=build /opt/pointsman /opt/pointsman
# Nothing is written at run time: the root file system can be read-only.
ENV PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
# Clients; and health, metrics and configuration, which are not for clients.
EXPOSE 8080 9090
ENTRYPOINT ["/opt/pointsman/bin/pointsman"]
# Mount manifests at /etc/pointsman. The probes come from outside the pod, hence the admin host.
CMD ["serve", "/etc/pointsman", "--admin-host", "0.0.0.0"]

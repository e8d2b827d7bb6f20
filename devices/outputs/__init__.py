"""Where results go: windows, files, web page, MQTT, Prometheus."""

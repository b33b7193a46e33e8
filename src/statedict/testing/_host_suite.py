class HostSuite: pass

"""What every folder above uses: messages, rules for parameters, devices, threads."""

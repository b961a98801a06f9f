#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/** argv → command → exit status. Alone touches argv, signals and exit. */
process.stderr.write('cloister: no command is wired yet\n')
process.exitCode = 2

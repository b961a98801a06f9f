// SPDX-License-Identifier: Apache-2.0
/**
 * All commands and their options. Each action loads its own file when it runs, so that `cloister verify` does not wait
 * for TensorFlow.js. An action returns its exit status.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { type CliContext, exitStatus, failureStatus, printError } from './context.ts'

type Action = (context: CliContext, options: never, ...operands: string[]) => Promise<number>

export async function run(argv: readonly string[], context: CliContext): Promise<number> {
  let status: number = exitStatus.ok
  const action =
    (load: () => Promise<Action>) =>
    async (...received: unknown[]): Promise<void> => {
      // Commander passes operands, then the options, then the command itself.
      const options = received.at(-2) as never
      const operands = received.slice(0, -2) as string[]
      status = await (await load())(context, options, ...operands)
    }
  const program = build(action)
  program.configureOutput({
    writeOut: (text) => context.stdout.write(text),
    writeErr: (text) => context.stderr.write(text),
    getOutHelpWidth: () => context.stdout.columns ?? 80,
    getErrHelpWidth: () => context.stderr.columns ?? 80,
  })
  program.exitOverride()
  for (const command of every(program)) command.exitOverride().copyInheritedSettings(program)
  try {
    await program.parseAsync([...argv], { from: 'user' })
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? exitStatus.ok : exitStatus.usage
    if (context.signal.aborted) {
      context.stderr.write('cloister: interrupted\n')
      return exitStatus.interrupted
    }
    printError(context, thrown)
    return failureStatus(thrown)
  }
  return status
}

function* every(command: Command): Generator<Command> {
  for (const child of command.commands) {
    yield child
    yield* every(child)
  }
}

const batchSize = (text: string): number => {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 1')
  return Number(text)
}

const wholeNumber = (text: string): number => {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a whole number')
  return Number(text)
}

const recordCount = (text: string): number => {
  const count = wholeNumber(text)
  if (count < 1 || count > 10_000) throw new InvalidArgumentError('expected 1 to 10000')
  return count
}

const rowCount = (text: string): number => {
  const count = wholeNumber(text)
  if (count < 2) throw new InvalidArgumentError('expected at least 2')
  return count
}

const fileCount = (text: string): number => {
  const count = wholeNumber(text)
  if (count < 1 || count > 1000) throw new InvalidArgumentError('expected 1 to 1000')
  return count
}

const hostAndPort = (text: string): string => {
  if (!/^(\[[0-9a-fA-F:.]+\]|[^\s:]+):\d{1,5}$/.test(text)) throw new InvalidArgumentError('expected host:port')
  return text
}

const collectAddresses = (value: string, previous: string[] = []): string[] => [...previous, hostAndPort(value)]

const collect = (value: string, previous: string[] = []): string[] => [...previous, value]

/** Options that start, simulate, server, worker and train share: the same words everywhere. */
function runOptions(command: Command, options: { job: 'required' | 'default' }): Command {
  const job = new Option('--job <file>', 'job file: what all parties agree on')
  if (options.job === 'required') job.makeOptionMandatory()
  return command
    .addOption(job)
    .option('--set <path=value>', 'change a field of the job, e.g. training.updates=200 (repeatable)', collect)
    .option('--deployment <file>', 'deployment file: what this host decides')
    .option('--out <directory>', 'run directory (default: runs/<time>)')
    .option('--data <directory>', 'data directory (default: CLOISTER_DATA, the cache, the download, synthetic)')
    .addOption(new Option('--engine <engine>', 'what computes').choices(['auto', 'tensorflow', 'javascript']))
    .option('--engine-directory <directory>', "directory with TensorFlow's libraries, used as it is")
    .addOption(new Option('--platform <platform>', 'what attests this process').choices(['gramine', 'simulated']))
    .option('--platform-directory <directory>', 'state of a simulated platform (cloister platform serve)')
    .option('--platform-machine <name>', 'which simulated machine this runs on')
    .option('--pccs <url>', 'where collateral comes from')
    .option('--qcnl <file>', "configuration of Intel's quoting library, instead of --pccs")
    .option('--threads <count>', 'threads of one process (default: the cores, shared)', wholeNumber)
    .option('--metrics <host:port>', 'serve Prometheus metrics there, over plain HTTP', hostAndPort)
    .option('--json', 'events as JSON lines on standard output, one object a line')
}

async function doctorAction(): Promise<Action> {
  const { doctor } = await import('./doctor.ts')
  return (context: CliContext, options: Parameters<typeof doctor>[1]) => doctor(context, options)
}

/** Where collateral comes from: shared by all commands that judge. */
function serviceOptions(command: Command): Command {
  return command
    .option('--pccs <url>', 'PCCS or PCS to ask')
    .addOption(new Option('--cloud <name>', "a cloud's service").choices(['alibaba', 'azure', 'bytedance', 'tencent']))
    .option('--region <name>', 'of the cloud, where it has regions')
    .option('--private-network', "the cloud's address inside its network")
    .option('--qcnl <file>', "configuration of Intel's quoting library")
    .option('--insecure-tls', 'take any TLS certificate of the service: collateral is believed for its signatures')
}

function build(action: (load: () => Promise<Action>) => (...received: unknown[]) => Promise<void>): Command {
  const program = new Command('cloister')
    .description('Horizontal federated learning inside SGX enclaves.')
    .version('0.1.0')
    .showHelpAfterError('(cloister --help lists the commands, cloister COMMAND --help the options)')

  runOptions(program.command('start'), { job: 'default' })
    .description('run the main job: engine, data, one server and two workers on this machine')
    .option('--offline', 'do not fetch the engine: use what the cache holds')
    .action(action(async () => (await import('./start.ts')).start as Action))
  runOptions(program.command('simulate'), { job: 'required' })
    .description('run one server and all workers of a job as processes on this machine')
    .option('--resume', 'go on in --out, the run directory of a run that was interrupted')
    .action(action(async () => (await import('./simulate.ts')).simulate as Action))
  runOptions(program.command('server'), { job: 'required' })
    .description('run a parameter server of a job')
    .option('--index <number>', 'which server of the job this is; 0 leads', wholeNumber, 0)
    .option('--connect <host:port>', 'where server 0 is, for the others', collectAddresses)
    .option('--listen <host:port>', 'where to listen', hostAndPort)
    .option('--health <host:port>', 'answer gRPC health checks there, without TLS', hostAndPort)
    .option('--resume', 'go on from what an earlier server of the job saved in --out')
    .addOption(new Option('--launched').hideHelp())
    .action(action(async () => (await import('./server.ts')).server as Action))
  runOptions(program.command('worker'), { job: 'required' })
    .description('run one worker of a job on this machine’s data')
    .requiredOption('--index <number>', 'which worker of the job this is, from 0', wholeNumber)
    .option('--connect <host:port>', "where the job's servers are, in their order (repeatable)", collectAddresses)
    .option('--health <host:port>', 'answer gRPC health checks there, without TLS', hostAndPort)
    .option('--resume', 'go on in the run directory of an earlier worker')
    .addOption(new Option('--launched').hideHelp())
    .action(action(async () => (await import('./worker.ts')).worker as Action))
  runOptions(program.command('train'), { job: 'required' })
    .description('run the same job in one process without federation: the baseline')
    .action(action(async () => (await import('./train.ts')).train as Action))

  program
    .command('export')
    .description('the trained model of a run for TensorFlow')
    .argument('<run>', 'directory of the run')
    .requiredOption('--out <directory>', 'where to put the model')
    .addOption(new Option('--format <format>', 'of the model').choices(['saved-model']).default('saved-model'))
    .option('--job <file>', 'job of the run (default: its job.json)')
    .option('--batch-size <number>', 'examples that the exported model takes at a time', batchSize, 1)
    .option('--engine-directory <directory>', "TensorFlow's C library, if not in the cache")
    .action(action(async () => (await import('./export.ts')).exportModel as Action))

  const engine = program.command('engine').description("TensorFlow's C library")
  engine
    .command('install')
    .description('fetch the pinned library into the cache')
    .option('--quiet', 'show no progress')
    .action(action(async () => (await import('./engine.ts')).install as Action))
  engine
    .command('info')
    .description('what is there, and whether it is intact')
    .option('--engine-directory <directory>', 'a directory other than the cache')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./engine.ts')).info as Action))

  const data = program.command('data').description('CIFAR-10, click logs in Criteo’s format, and stand-ins for both')
  data
    .command('fetch')
    .description('download a data set into the cache, checked against the official digests')
    .argument('<name>', 'cifar10')
    .option('--out <directory>', 'where to put it (default: the cache)')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./data-commands.ts')).fetch as Action))
  data
    .command('inspect')
    .description('what a data directory, or a file of click logs, holds: sizes, digests, labels, columns')
    .argument('[directory]')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./data-commands.ts')).inspect as Action))
  const synthesize = data.command('synthesize').description('write learnable synthetic data of any size')
  synthesize
    .command('cifar10')
    .description('ten classes of images in the format of CIFAR-10')
    .argument('<directory>')
    .option('--seed <number>', 'which set', wholeNumber, 1)
    .option('--records <count>', 'images in each of the six files, 10000 at most', recordCount, 2000)
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./data-commands.ts')).synthesizeCifar10 as Action))
  synthesize
    .command('criteo')
    .description('click logs in the format of Criteo, with the shape of the real ones')
    .argument('<directory>')
    .option('--rows <count>', 'how many', rowCount, 1_000_000)
    .option('--seed <number>', 'which set', wholeNumber, 1)
    .option('--files <count>', 'day_0, day_1 …; one is train.txt', fileCount, 1)
    .option('--gz', 'compressed')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./data-commands.ts')).synthesizeCriteo as Action))

  const platform = program.command('platform').description('a simulated SGX platform for any machine')
  platform
    .command('serve')
    .description('make or open a simulated platform and serve its collateral (PCCS) until stopped')
    .argument('<directory>')
    .option('--host <host>', 'where to listen', '127.0.0.1')
    .option('--port <port>', '0 takes a free one', wholeNumber, 8081)
    .option(
      '--advertise <host>',
      "host in the address that others are told (default: that of --host; of 0.0.0.0 and :: this machine's name)",
    )
    .option('--variant <name>', 'what is wrong with it, e.g. out-of-date (repeatable)', collect)
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./platform-commands.ts')).serve as Action))
  platform
    .command('set')
    .description('change what is wrong with a simulated platform while jobs run')
    .argument('<directory>')
    .option('--variant <name>', 'what is wrong with it; none: it is healthy (repeatable)', collect)
    .action(action(async () => (await import('./platform-commands.ts')).set as Action))

  serviceOptions(program.command('verify'))
    .description('judge a quote, an RA-TLS certificate or a running enclave by a policy, without joining anything')
    .argument('<subject>', 'file with a quote or certificate, or host:port')
    .requiredOption('--policy <file>', 'what is wanted')
    .option('--collateral <file>', 'bundle instead of a service')
    .option('--root <file>', 'root certificate instead of the one that the policy names')
    .option('--at <time>', 'judge as of then: ISO 8601, or seconds since 1970')
    .option('--self <mrenclave>', 'what `self` in the policy stands for, hex')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./verify.ts')).verify as Action))
  program
    .command('measure')
    .description('MRENCLAVE of this build, and the files that make it')
    .option('--enclave <directory>', 'of an image for SGX: what npm run build:enclave made')
    .option('--description <file>', 'of a release, as its --json says; with --enclave compared with it')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./measure.ts')).measure as Action))

  serviceOptions(program.command('provision'))
    .description('hand a secret to an enclave that runs your job and passes your policy')
    .argument('<address>', 'host:port where the enclave takes keys', hostAndPort)
    .requiredOption('--job <file>', 'the job that you agreed to')
    .option('--set <path=value>', 'change a field of the job, as its parties did (repeatable)', collect)
    .requiredOption('--policy <file>', 'who may have the secret')
    .requiredOption('--owner <file>', 'your private key, whose public half is in the job')
    .requiredOption('--name <name>', 'which key of the job this is')
    .requiredOption('--key <file>', 'the secret: an age identity file, or 32 bytes')
    .option('--collateral <file>', 'bundle instead of a service')
    .option('--self <mrenclave>', 'what `self` in the policy stands for, hex')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./provision.ts')).provision as Action))
  const keygen = program.command('keygen').description('keys that a data owner makes on their own machine')
  keygen
    .command('owner')
    .description('what an enclave knows you by: the public half, which is printed, goes into the job')
    .argument('<file>', 'new file')
    .action(action(async () => (await import('./keygen.ts')).owner as Action))
  keygen
    .command('age')
    .description('what opens files that are encrypted to the public half, which is printed')
    .argument('<file>', 'new file')
    .action(action(async () => (await import('./keygen.ts')).age as Action))
  keygen
    .command('sealing')
    .description('what seals checkpoints, so that another machine can go on from them')
    .argument('<file>', 'new file')
    .action(action(async () => (await import('./keygen.ts')).sealing as Action))

  program
    .command('audit')
    .description('what enclaves wrote down about a run')
    .command('verify')
    .description('check logs offline: chain, signatures, quotes, evidence, and that nothing was cut that is remembered')
    .argument('<subject>', 'run directory, or one log')
    .requiredOption('--policy <file>', 'whose logs are wanted')
    .option('--collateral <file>', 'bundle instead of the one that was kept with the run')
    .option('--at <time>', 'judge as of then (default: with --collateral now, else when the enclave started)')
    .option('--self <mrenclave>', 'what `self` in the policy stands for, hex')
    .option('--head <index:sha256>', 'a record that the log must have, kept elsewhere')
    .option('--json', 'machine-readable, with all records')
    .action(action(async () => (await import('./audit.ts')).verify as Action))

  const policy = program.command('policy').description('policies: who may take part')
  policy
    .command('init')
    .description('write the strictest policy that a healthy platform passes')
    .argument('[file]', 'new file (default: standard output)')
    .option('--root <file>', "root certificate that is not Intel's")
    .option('--root-name <name>', 'what to call it')
    .option('--mrenclave <hex>', 'accepted MRENCLAVE (repeatable; default: self)', collect)
    .action(action(async () => (await import('./policy.ts')).init as Action))
  policy
    .command('check')
    .description('what a policy says, above all where it is weak')
    .argument('<file>')
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./policy.ts')).check as Action))

  const collateral = program.command('collateral').description('what quotes are verified with')
  serviceOptions(collateral.command('fetch'))
    .description('fetch the collateral of a quote into one bundle for use offline')
    .argument('<subject>', 'file with a quote or certificate, or host:port')
    .option('--out <file>', 'where to write it (default: standard output)')
    .option('--root <file>', "root certificate that is not Intel's")
    .action(action(async () => (await import('./collateral.ts')).fetchCollateral as Action))
  collateral
    .command('show')
    .description('dates, evaluation numbers and TCB levels of a bundle')
    .argument('<bundle>')
    .option('--root <file>', "root certificate that is not Intel's")
    .option('--json', 'machine-readable')
    .action(action(async () => (await import('./collateral.ts')).showCollateral as Action))
  serviceOptions(program.command('doctor'))
    .description('what this machine lacks to run and judge enclaves, and what to do about it')
    .option('--root <file>', "root certificate that is not Intel's")
    .option('--quote <file>', 'quote of an enclave on this machine, to judge the platform by')
    .option('--json', 'machine-readable')
    .action(action(doctorAction))

  program
    .command('health')
    .description('ask a server or worker that was started with --health, as a probe does')
    .argument('<host:port>', 'where it answers', hostAndPort)
    .option('--answer', 'answer there instead of asking, for a process that did its work and is gone')
    .action(action(async () => (await import('./health.ts')).health as Action))

  const job = program.command('job').description('job and deployment files')
  job
    .command('check')
    .description('validate a job file and print its digest')
    .argument('<file>')
    .option('--set <path=value>', 'change a field (repeatable)', collect)
    .option('--out <file>', 'write the job as it was checked there')
    .action(action(async () => (await import('./job.ts')).check as Action))
  job
    .command('schema')
    .description('print the JSON Schema of job or deployment files')
    .argument('[kind]', 'job or deployment', 'job')
    .action(action(async () => (await import('./job.ts')).schema as Action))
  return program
}

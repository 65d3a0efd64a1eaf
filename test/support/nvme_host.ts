/**
 * A small NVMe/TCP host, built from the published formats alone: enough to do I/O properly, and to leave undone what
 * a test wants left undone. No digests. Layouts: NVMe/TCP transport 1.0 (PDUs), NVMe-oF 1.1 (Connect), NVMe base.
 */
import net from "node:net";

export const DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery";
/** Connect's "busy": come again later. */
export const CONTROLLER_BUSY = 0x181;
const PDU = {
  icReq: 0,
  icResp: 1,
  termReq: 3,
  command: 4,
  response: 5,
  h2cData: 6,
  c2hData: 7,
  r2t: 9,
} as const;
const LAST = 4;
const DATA_SUCCESS = 8;
const BLOCK = 512;

export interface HostName {
  readonly subsystem: string;
  readonly hostNqn: string;
  readonly hostId: Buffer;
}

interface Answer {
  readonly status: number;
  readonly dw0: number;
  readonly data: Buffer;
}

interface Pdu {
  readonly type: number;
  readonly flags: number;
  readonly bytes: Buffer;
}

/** Address and name of the `nvmf://` URI of a target. */
export function parseTarget(uri: string): { host: string; port: number; subsystem: string } {
  const match = /^nvmf(?:\+tcp)?:\/\/([^:]+):(\d+)\/([^?]+)/.exec(uri);
  if (!match) throw new Error(`not the URI of a target: ${uri}`);
  return { host: match[1] ?? "", port: Number(match[2]), subsystem: match[3] ?? "" };
}

function pdu(type: number, header: Buffer, data?: Buffer, flags = 0): Buffer {
  const headerLength = 8 + header.length;
  const common = Buffer.alloc(8);
  common.writeUInt8(type, 0);
  common.writeUInt8(flags, 1);
  common.writeUInt8(headerLength, 2);
  common.writeUInt8(data ? headerLength : 0, 3);
  common.writeUInt32LE(headerLength + (data?.length ?? 0), 4);
  return Buffer.concat(data ? [common, header, data] : [common, header]);
}

function command(opcode: number, cid: number, fill: (sqe: Buffer) => void): Buffer {
  const sqe = Buffer.alloc(64);
  sqe.writeUInt8(opcode, 0);
  sqe.writeUInt8(0x40, 1);
  sqe.writeUInt16LE(cid, 2);
  fill(sqe);
  return sqe;
}

function sgl(sqe: Buffer, length: number, inCapsule: boolean): void {
  sqe.writeUInt32LE(length, 32);
  sqe.writeUInt8(inCapsule ? 0x01 : 0x5a, 39);
}

/** One TCP connection: a queue, or what never becomes one. */
export class NvmeQueue {
  readonly socket: net.Socket;
  #received = Buffer.alloc(0);
  #waiting: (() => void) | null = null;
  #ended = false;
  #cid = 0;

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => {
      this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
      this.#waiting?.();
    });
    const end = () => {
      this.#ended = true;
      this.#waiting?.();
    };
    socket.on("error", end);
    socket.on("close", end);
  }

  static async open(where: { readonly host: string; readonly port: number }): Promise<NvmeQueue> {
    const socket = net.connect({ ...where });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new NvmeQueue(socket);
  }

  get ended(): boolean {
    return this.#ended;
  }

  close(): void {
    this.socket.destroy();
  }

  send(bytes: Buffer): void {
    if (!this.#ended) this.socket.write(bytes);
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#received.length < length) {
      if (this.#ended) throw new Error("the target closed the connection");
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    const taken = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return taken;
  }

  async receive(): Promise<Pdu> {
    const common = await this.#take(8);
    const rest = await this.#take(common.readUInt32LE(4) - 8);
    const bytes = Buffer.concat([common, rest]);
    return { type: common.readUInt8(0), flags: common.readUInt8(1), bytes };
  }

  async handshake(): Promise<void> {
    this.send(pdu(PDU.icReq, Buffer.alloc(120)));
    const answer = await this.receive();
    if (answer.type !== PDU.icResp) throw new Error(`PDU ${answer.type} instead of an ICResp`);
  }

  /** The status of Connect, and the controller's id in dw0. */
  async connect(
    name: HostName,
    queue: { qid: number; cntlid: number; entries: number },
  ): Promise<Answer> {
    const data = Buffer.alloc(1024);
    name.hostId.copy(data, 0, 0, 16);
    data.writeUInt16LE(queue.cntlid, 16);
    data.write(name.subsystem, 256);
    data.write(name.hostNqn, 512);
    const sqe = command(0x7f, 0, (out) => {
      out.writeUInt8(1, 4); // Connect
      sgl(out, data.length, true);
      out.writeUInt16LE(queue.qid, 42);
      out.writeUInt16LE(queue.entries - 1, 44);
      out.writeUInt8(4, 46); // no flow control of the submission queue
    });
    this.send(pdu(PDU.command, sqe, data));
    return await this.answer();
  }

  async enable(): Promise<void> {
    const sqe = command(0x7f, this.#nextCid(), (out) => {
      out.writeUInt32LE(0x14, 44); // CC
      out.writeUInt32LE(0x460001, 48);
    });
    this.send(pdu(PDU.command, sqe));
    const { status } = await this.answer();
    if (status !== 0) throw new Error(`cannot enable the controller: status ${status}`);
  }

  async keepAlive(): Promise<void> {
    this.send(
      pdu(
        PDU.command,
        command(0x18, this.#nextCid(), () => {}),
      ),
    );
    await this.answer();
  }

  /** Sends one and does not wait for what comes. */
  begin(opcode: "read" | "write", lba: number, bytes: number): void {
    const sqe = command(opcode === "write" ? 1 : 2, this.#nextCid(), (out) => {
      out.writeUInt32LE(1, 4);
      sgl(out, bytes, false);
      out.writeUInt32LE(lba, 40);
      out.writeUInt32LE(bytes / BLOCK - 1, 48);
    });
    this.send(pdu(PDU.command, sqe));
  }

  async write(lba: number, data: Buffer): Promise<void> {
    this.begin("write", lba, data.length);
    const { status } = await this.answer(data);
    if (status !== 0) throw new Error(`a write failed with status ${status}`);
  }

  async read(lba: number, bytes: number): Promise<Buffer> {
    this.begin("read", lba, bytes);
    const { status, data } = await this.answer();
    if (status !== 0) throw new Error(`a read failed with status ${status}`);
    return data;
  }

  /** Of the one command that is under way; its R2Ts are answered from `out`. */
  async answer(out?: Buffer): Promise<Answer> {
    const parts: Buffer[] = [];
    for (;;) {
      const { type, flags, bytes } = await this.receive();
      if (type === PDU.response) {
        const status = bytes.readUInt16LE(22) >> 1;
        return { status: status & 0x7ff, dw0: bytes.readUInt32LE(8), data: Buffer.concat(parts) };
      }
      if (type === PDU.c2hData) {
        parts.push(bytes.subarray(bytes.readUInt8(3)));
        if (flags & DATA_SUCCESS) return { status: 0, dw0: 0, data: Buffer.concat(parts) };
      } else if (type === PDU.r2t && out) {
        const offset = bytes.readUInt32LE(12);
        const length = bytes.readUInt32LE(16);
        const header = Buffer.alloc(16);
        bytes.copy(header, 0, 8, 12); // command id and tag
        header.writeUInt32LE(offset, 4);
        header.writeUInt32LE(length, 8);
        this.send(pdu(PDU.h2cData, header, out.subarray(offset, offset + length), LAST));
      } else {
        throw new Error(type === PDU.termReq ? "the target sent a TermReq" : `PDU ${type} came`);
      }
    }
  }

  #nextCid(): number {
    this.#cid = (this.#cid + 1) & 0x7fff;
    return this.#cid;
  }
}

export class NvmeRefused extends Error {
  readonly status: number;
  constructor(status: number) {
    super(`Connect was refused with status 0x${status.toString(16)}`);
    this.status = status;
  }
}

/** A controller with its queues. @throws {NvmeRefused} */
export class NvmeHost {
  readonly admin: NvmeQueue;
  readonly queues: NvmeQueue[] = [];
  readonly #where: { readonly host: string; readonly port: number };
  readonly #name: HostName;
  readonly #cntlid: number;

  private constructor(
    admin: NvmeQueue,
    where: { host: string; port: number },
    name: HostName,
    cntlid: number,
  ) {
    this.admin = admin;
    this.#where = where;
    this.#name = name;
    this.#cntlid = cntlid;
  }

  static async open(where: { host: string; port: number }, name: HostName): Promise<NvmeHost> {
    const admin = await NvmeQueue.open(where);
    await admin.handshake();
    const { status, dw0 } = await admin.connect(name, { qid: 0, cntlid: 0xffff, entries: 32 });
    if (status !== 0) {
      admin.close();
      throw new NvmeRefused(status);
    }
    const host = new NvmeHost(admin, where, name, dw0 & 0xffff);
    if (name.subsystem !== DISCOVERY_NQN) await admin.enable();
    return host;
  }

  async addQueue(entries = 128): Promise<NvmeQueue> {
    const queue = await NvmeQueue.open(this.#where);
    this.queues.push(queue);
    await queue.handshake();
    const { status } = await queue.connect(this.#name, {
      qid: this.queues.length,
      cntlid: this.#cntlid,
      entries,
    });
    if (status !== 0) throw new NvmeRefused(status);
    return queue;
  }

  close(): void {
    for (const queue of [...this.queues, this.admin]) queue.close();
  }
}

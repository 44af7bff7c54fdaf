/** Who is connected: addresses, the networks that a limit counts, and the proxies in front of us. */
import { BlockList, isIP, isIPv6 } from "node:net";

/** What an address counts as: itself, or the /64 of IPv6, which is one subscriber's. */
export function networkOf(address: string): string {
  const plain = unmapped(address);
  if (!isIPv6(plain)) return plain.slice(0, 64);
  // A URL writes IPv6 in one way only; "::" stands for as many zeros as are missing.
  const [left = "", right] = new URL(`http://[${plain}]`).hostname.slice(1, -1).split("::");
  const first = left ? left.split(":") : [];
  const last = right ? right.split(":") : [];
  const zeros = right === undefined ? 0 : 8 - first.length - last.length;
  const groups = [...first, ...Array<string>(zeros).fill("0"), ...last];
  return `${groups.slice(0, 4).join(":")}::/64`;
}

function unmapped(address: string): string {
  const mapped = /^::ffff:([\d.]+)$/i.exec(address);
  return mapped?.[1] ?? address.replace(/%.*$/, "");
}

/**
 * The addresses and networks of proxies, with commas between.
 *
 * @throws Error one is none, or every address would be a proxy's.
 */
export function parseProxies(text: string): BlockList {
  const proxies = new BlockList();
  for (const part of text.split(",")) {
    const [address = "", prefix, more] = part.trim().split("/");
    const family = isIP(address);
    const length = prefix === undefined ? (family === 6 ? 128 : 32) : Number(prefix);
    if (family === 0 || more !== undefined || !/^\d{1,3}$/.test(prefix ?? "0")) {
      throw new Error("addresses or networks of your proxies, with commas between");
    }
    if (length === 0) {
      throw new Error("names every address: callers could choose the one that is limited");
    }
    proxies.addSubnet(address, length, family === 6 ? "ipv6" : "ipv4");
  }
  return proxies;
}

/**
 * Where a request came from: whoever is connected, or, where that is a proxy of ours, the last one
 * that `X-Forwarded-For` names and that is none. What a client sends itself stands further left.
 */
export function clientOf(connected: string, forwarded: string, proxies: BlockList): string {
  const named = forwarded.split(",").map((each) => each.trim());
  let address = unmapped(connected);
  while (isProxy(address, proxies)) {
    const next = named.pop();
    if (!next) break;
    address = unmapped(next);
  }
  return address;
}

function isProxy(address: string, proxies: BlockList): boolean {
  const family = isIP(address);
  return family !== 0 && proxies.check(address, family === 6 ? "ipv6" : "ipv4");
}

"""The client of the tests: its lines are compared between a direct run and one under `steadfast run`."""
import array, asyncio, errno, fcntl, hashlib, os, pty, resource, select, signal, socket, struct, subprocess, sys, time


def told(act):
    """Prints the name of the error that `act` meets, or its result."""
    try:
        print(act())
    except TimeoutError:
        print("timeout")
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))


def connect(host, port, limit=5):
    return socket.create_connection((host, int(port)), limit)


def dial(*ends):
    for end in ends:
        host, port = end.rsplit(":", 1)
        began = time.monotonic()
        told(lambda: connect(host, port).close())
        # For the tests that look at the time.
        print(f"{end} {time.monotonic() - began:.3f}", file=sys.stderr)


def reset(host, port, count):
    """Sends one byte, and resets the connection once the peer has it."""
    for _ in range(int(count)):
        stream = connect(host, port)
        stream.send(b"x")
        stream.recv(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
    print("done")


def drain(host, port):
    """Asks with a byte, and reads to the end or to an error."""
    stream = connect(host, port)
    stream.send(b"x")
    seen = hashlib.sha256()
    try:
        while data := stream.recv(65536):
            seen.update(data)
        print("end")
    except OSError as error:
        print(errno.errorcode[error.errno])
    print(seen.hexdigest())


def upload(host, port, amount):
    """Sends, ends its direction, and reads the answer."""
    stream = connect(host, port)
    stream.sendall(bytes(range(256)) * (int(amount) // 256))
    stream.shutdown(socket.SHUT_WR)
    answer = b""
    while data := stream.recv(65536):
        answer += data
    print(answer.decode())


def crowd(host, port, count):
    """Opens many connections at once, each with an echo."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    async def one(number):
        reader, writer = await asyncio.open_connection(host, int(port))
        text = f"{number}\n".encode()
        writer.write(text)
        same = await reader.readline() == text
        writer.close()
        return same

    async def all_of_them():
        return sum(await asyncio.gather(*(one(number) for number in range(int(count)))))

    print(asyncio.run(all_of_them()))


QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x01\x01\x00\x01"


def queries(host):
    """Asks a name server once for each line of the input, and prints the lengths of the answers."""
    for _ in sys.stdin:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(QUESTION, (host, 53))
            print(len(sock.recv(65536)), flush=True)


def query(host):
    """Asks a name server the same over UDP and TCP, and prints the answers without their id."""
    question = QUESTION
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(question, (host, 53))
        answer = sock.recv(65536)
        print(answer[:2] == question[:2], hashlib.sha256(answer[2:]).hexdigest())
    with connect(host, 53) as stream:
        stream.sendall(struct.pack(">H", len(question)) + question)
        answer = b""
        while data := stream.recv(65536):
            answer += data
        print(len(answer), hashlib.sha256(answer[4:]).hexdigest())


def datagrams(host, port, *sizes):
    """Sends datagrams, and prints the sizes that return."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((host, int(port)))
        for size in sizes:
            def exchange():
                sock.send(b"x" * int(size))
                return len(sock.recv(65536))
            told(exchange)


def burst(host, port, amount, size):
    """Sends bytes as one super-segment of datagrams (UDP_SEGMENT), and prints the datagrams that return."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((host, int(port)))
        sock.setsockopt(socket.IPPROTO_UDP, 103, int(size))
        sent = sock.send(bytes(at % 251 for at in range(int(amount))))
        while sent > 0:
            datagram = sock.recv(65536)
            sent -= len(datagram)
            print(len(datagram), datagram[0])


def ping(host, *sizes):
    """Sends echo requests, and prints the sizes of the replies or the errors."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(5)
        # Errors that are not final are told too.
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)
        sock.connect((host, 0))
        for size in sizes:
            def exchange():
                sock.send(struct.pack(">BBHHH", 8, 0, 0, 0, 1) + b"x" * int(size))
                return len(sock.recv(65536))
            told(exchange)


def too_big(size, *ends):
    """Sends datagrams that may not be fragmented, and prints the sizes that return, or the error and the path MTU."""
    for end in ends:
        host, port = end.rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            # IP_MTU_DISCOVER: always with DF, whatever is known of the path.
            sock.setsockopt(socket.IPPROTO_IP, 10, 2)
            sock.connect((host, int(port)))
            try:
                sock.send(b"x" * int(size))
                print(len(sock.recv(65536)))
            except OSError as error:
                # IP_MTU
                print(errno.errorcode.get(error.errno, error), sock.getsockopt(socket.IPPROTO_IP, 14))


def trace(kind, host):
    """Prints who answers a datagram or an echo request of each TTL, until the host itself does."""
    icmp = kind == "icmp"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if icmp else 0) as sock:
        sock.settimeout(5)
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)
        for ttl in range(1, 9):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            sock.sendto(struct.pack(">BBHHH", 8, 0, 0, 0, ttl), (host, 33434 + ttl))
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            ready = poll.poll(5000)
            if not ready:
                print("timeout")
            elif ready[0][1] & select.POLLERR:
                # MSG_ERRQUEUE: a `sock_extended_err`, and the address of who sent it.
                (_, _, data), = sock.recvmsg(64, 512, 0x2000)[1]
                reached = data[5] == 3
                print(socket.inet_ntoa(data[20:24]) + (" reached" if reached else ""))
                if reached:
                    return
            else:
                print(sock.recvfrom(64)[1][0], "reached")
                return


def one_socket(*ends):
    """Sends to several destinations from one socket, and prints who answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        for end in ends:
            host, port = end.rsplit(":", 1)
            sock.sendto(b"x", (host, int(port)))
            host, port = sock.recvfrom(64)[1]
            print(f"{host}:{port}")


def numbered(host, port, count):
    """Sends numbered datagrams one after the other, and prints the numbers of those that return."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, int(port)))
        for number in range(int(count)):
            sock.send(struct.pack(">H", number))
            # One at a time, so that all come to the network in this order.
            time.sleep(0.002)
        sock.settimeout(0.5)
        seen = []
        try:
            while True:
                seen.append(struct.unpack(">H", sock.recv(64))[0])
        except TimeoutError:
            print(*seen)


def hops(kind, host, port):
    """Prints the TTL of an echo reply, or of a datagram that returns."""
    icmp = kind == "icmp"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if icmp else 0) as sock:
        sock.settimeout(5)
        # IP_RECVTTL
        sock.setsockopt(socket.IPPROTO_IP, 12, 1)
        sock.connect((host, int(port)))
        sock.send(struct.pack(">BBHHH", 8, 0, 0, 0, 1))
        (_, _, ttl), = sock.recvmsg(64, 64)[1]
        print(struct.unpack("i", ttl)[0])


def open_device(name, flags):
    """Opens a TUN or TAP device without packet information (TUNSETIFF, IFF_NO_PI)."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", name.encode(), flags | 0x1000))
    return device


def ip(*lines):
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


def pass_tun(client, *args):
    """Passes the file of a TUN device over standard input, a UNIX socket, waits for a byte there, and goes on behind the
    device."""
    device = open_device("tun0", 1)
    ip("link set lo up", "address add 10.0.2.15/24 dev tun0", "link set tun0 up", "route add default via 10.0.2.2")
    parent = socket.socket(fileno=os.dup(0))
    parent.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
    parent.recv(1)
    globals()[client](*args)


def tap(name):
    """Plays the machine behind a TAP device: carries frames between it and standard input, a UNIX socket of datagrams."""
    device, frames = open_device(name, 2), socket.socket(fileno=os.dup(0))
    ip(f"link set {name} up")
    print("ready", flush=True)
    while True:
        for ready in select.select([device, frames], [], [])[0]:
            if ready == device:
                try:
                    frames.send(os.read(device, 65536))
                except ConnectionRefusedError:
                    return
            else:
                os.write(device, frames.recv(65536))


def abandon(end, limit):
    """Gives a connection up, says so, and lives on until its input ends."""
    host, port = end.rsplit(":", 1)
    told(lambda: connect(host, port, float(limit)))
    sys.stdout.flush()
    sys.stdin.read()


def resident():
    """Memory of the process that started this one, in KiB."""
    with open(f"/proc/{os.getppid()}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def stop(kind, host, port, amount):
    """Carries bytes to or from a server that waits for a word on a second connection, or says one, once the first has
    stood still. Prints by how much the memory of the parent has grown until then."""
    data = bytes(range(256)) * 256
    before, amount = resident(), int(amount)
    stream, control = connect(host, port), connect(host, port)
    if kind == "up":
        sent = 0
        while sent < amount and select.select([], [stream], [], 1)[1]:
            sent += stream.send(data[:min(len(data), amount - sent)])
        grown = resident() - before
        control.send(b"x")
        while sent < amount:
            stream.sendall(data[:min(len(data), amount - sent)])
            sent += min(len(data), amount - sent)
        stream.shutdown(socket.SHUT_WR)
        total = int(stream.recv(64))
    else:
        control.settimeout(60)
        control.recv(1)
        grown, total = resident() - before, 0
        while part := stream.recv(65536):
            total += len(part)
    print(total, grown)


def terminal(*command):
    """Runs a command at a terminal, whose user stops it, continues it and interrupts it."""
    pid, terminal = pty.fork()
    if pid == 0:
        # A test that runs in the background inherits signals that are ignored. At a terminal they are not.
        for key in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(key, signal.SIG_DFL)
        os.execvp(command[0], command)
    seen = b""

    def expect(text):
        nonlocal seen
        while text not in seen:
            if not select.select([terminal], [], [], 10)[0]:
                sys.exit(f"expected {text}, found {seen}")
            seen += os.read(terminal, 4096)
        seen = seen.split(text, 1)[1]

    for text, key in [(b"ready", b"\x1a"), (b"stopped 148", b"hold\n"), (b"got hold", b"\x03"), (b"ended 130", b"")]:
        expect(text)
        os.write(terminal, key)
    print("done")


def besides(dead, alive, pending, count):
    """Connects while many connections to another host are pending. Prints how many were made in half a second."""
    def begin(end):
        sock = socket.socket()
        sock.setblocking(False)
        host, port = end.rsplit(":", 1)
        sock.connect_ex((host, int(port)))
        return sock

    waiting = [begin(dead) for _ in range(int(pending))]
    made = 0
    for _ in range(int(count)):
        began = time.monotonic()
        connect(*alive.rsplit(":", 1)).close()
        made += time.monotonic() - began < 0.5
    print(made, len(waiting))


def serve(kind, host, port, count):
    """Tells each client how it is seen, and prints it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.bind((host, int(port)))
        if kind == "tcp":
            sock.listen()
        print("listening", flush=True)
        for _ in range(int(count)):
            if kind == "tcp":
                stream, peer = sock.accept()
                with stream:
                    stream.sendall(f"{peer[0]}:{peer[1]}".encode())
            else:
                _, peer = sock.recvfrom(64)
                sock.sendto(f"{peer[0]}:{peer[1]}".encode(), peer)


globals()[sys.argv[1]](*sys.argv[2:])

/*
 * The peer of the benchmarks: a filter on libmilter that adds a header to every message.
 *
 *   libmilter_filter PORT all    every callback exists and continues, as a policy with every function does
 *   libmilter_filter PORT eom    only end of message; every other step is declined in the negotiation
 *
 * PORT is libmilter's: inet:PORT@HOST or unix:PATH. Built by benches/run: cc -O2 libmilter_filter.c -lmilter -lpthread
 */
#include <libmilter/mfapi.h>
#include <stdio.h>
#include <string.h>

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address) { (void)ctx; (void)host; (void)address; return SMFIS_CONTINUE; }
static sfsistat on_helo(SMFICTX *ctx, char *name) { (void)ctx; (void)name; return SMFIS_CONTINUE; }
static sfsistat on_mail(SMFICTX *ctx, char **words) { (void)ctx; (void)words; return SMFIS_CONTINUE; }
static sfsistat on_rcpt(SMFICTX *ctx, char **words) { (void)ctx; (void)words; return SMFIS_CONTINUE; }
static sfsistat on_data(SMFICTX *ctx) { (void)ctx; return SMFIS_CONTINUE; }
static sfsistat on_header(SMFICTX *ctx, char *name, char *value) { (void)ctx; (void)name; (void)value; return SMFIS_CONTINUE; }
static sfsistat on_eoh(SMFICTX *ctx) { (void)ctx; return SMFIS_CONTINUE; }
static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t length) { (void)ctx; (void)chunk; (void)length; return SMFIS_CONTINUE; }
static sfsistat on_unknown(SMFICTX *ctx, const char *command) { (void)ctx; (void)command; return SMFIS_CONTINUE; }
static sfsistat on_abort(SMFICTX *ctx) { (void)ctx; return SMFIS_CONTINUE; }
static sfsistat on_close(SMFICTX *ctx) { (void)ctx; return SMFIS_CONTINUE; }

static sfsistat on_eom(SMFICTX *ctx)
{
	return smfi_addheader(ctx, "X-Filter", "ok") == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

static sfsistat negotiate_eom_only(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long rest0,
	unsigned long rest1, unsigned long *wanted_actions, unsigned long *wanted_steps, unsigned long *wanted0, unsigned long *wanted1)
{
	(void)ctx; (void)actions; (void)rest0; (void)rest1;
	*wanted_actions = SMFIF_ADDHDRS;
	*wanted_steps = steps & (SMFIP_NOCONNECT | SMFIP_NOHELO | SMFIP_NOMAIL | SMFIP_NORCPT | SMFIP_NOBODY | SMFIP_NOHDRS |
		SMFIP_NOEOH | SMFIP_NOUNKNOWN | SMFIP_NODATA);
	*wanted0 = *wanted1 = 0;
	return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
	struct smfiDesc filter;

	if (argc != 3) {
		fprintf(stderr, "usage: libmilter_filter PORT all|eom\n");
		return 2;
	}
	memset(&filter, 0, sizeof filter);
	filter.xxfi_name = "peer";
	filter.xxfi_version = SMFI_VERSION;
	filter.xxfi_flags = SMFIF_ADDHDRS;
	filter.xxfi_eom = on_eom;
	if (strcmp(argv[2], "eom") == 0) {
		filter.xxfi_negotiate = negotiate_eom_only;
	} else {
		filter.xxfi_connect = on_connect;
		filter.xxfi_helo = on_helo;
		filter.xxfi_envfrom = on_mail;
		filter.xxfi_envrcpt = on_rcpt;
		filter.xxfi_data = on_data;
		filter.xxfi_header = on_header;
		filter.xxfi_eoh = on_eoh;
		filter.xxfi_body = on_body;
		filter.xxfi_unknown = on_unknown;
		filter.xxfi_abort = on_abort;
		filter.xxfi_close = on_close;
	}
	if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_setbacklog(1024) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS) {
		fprintf(stderr, "libmilter_filter: cannot set up %s\n", argv[1]);
		return 1;
	}
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
